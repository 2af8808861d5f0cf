// Command orchestrator is Ringmaster's daemon and its operator's command line.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
