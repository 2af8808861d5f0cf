// Command orders is the worker of the shop's order service. It registers the
// order workflow when it starts.
package main

import (
	"context"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/flow"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/orders"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/service"
)

func main() {
	service.Main("orders", func(ctx context.Context, s service.Settings) (service.Service, error) {
		return orders.Open(ctx, s.Database)
	}, flow.OrderFlow.Workflow)
}
