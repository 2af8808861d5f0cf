// Package locktest is the suite that every lock provider passes, on a real
// server.
//
// A test package calls [Main] from its TestMain, since the suite starts the test
// binary again: the holders that it kills and stops are processes of their own.
// [Run] runs the suite, [Benchmark] measures a provider.
package locktest
