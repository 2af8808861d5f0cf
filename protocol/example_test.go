package protocol_test

import (
	"errors"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Two sides talk in the newest version that both speak. Where there is none, the
// error names the versions of both.
func ExampleVersions_Common() {
	this := protocol.Versions{Min: 1, Max: 2}
	for _, peer := range []protocol.Versions{{Min: 1, Max: 1}, {Min: 2, Max: 3}, {Min: 3, Max: 4}} {
		v, err := this.Common(peer)
		if errors.Is(err, protocol.ErrVersion) {
			fmt.Println(err)
			continue
		}
		fmt.Printf("a peer of version %v: version %d\n", peer, v)
	}
	// Output:
	// a peer of version 1: version 1
	// a peer of version 2 to 3: version 2
	// unsupported protocol version: the peer speaks protocol version 3 to 4, this side speaks version 1 to 2
}
