// Package client starts, waits for, inspects and settles runs over
// Ringmaster's HTTP API.
//
// A [Client] is made once and shared. A typed workflow makes starts and their
// results typed:
//
//	c, err := client.New(client.Config{URL: "http://127.0.0.1:7070"})
//	...
//	run, err := client.Start(ctx, c, OrderFlow, OrderInput{...}, client.ID("order-1042"))
//	...
//	result, err := run.Wait(ctx)
//	fmt.Println(result.Output)
//
// # Ids and repetition
//
// A run's id is its idempotency key: starting the same workflow with the same
// id and input again gives the same run, with another input it is a conflict.
// A start without an id gets one (a UUIDv7) here, before it is sent, so that
// every start can be repeated safely; the client does so by itself, with
// growing pauses, when the orchestrator is away or asks to come back later.
//
// # Errors
//
// An answer that refuses is an error from which [errors.As] gets the
// *rest.Problem, which names the field and the rule, and which [errors.Is]
// compares with the sentinels of this package, such as [ErrNotFound].
package client
