// Command deliveries is the worker of the shop's delivery service. Command
// deliveries-http is the same service over plain HTTP.
package main

import (
	"context"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/deliveries"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/service"
)

func main() {
	service.Main("deliveries", func(ctx context.Context, s service.Settings) (service.Service, error) {
		d, err := deliveries.Open(ctx, s.Database)
		if err != nil {
			return nil, err
		}
		d.Latency = s.Latency
		return d, nil
	})
}
