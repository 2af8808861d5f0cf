// Command payments is the worker of the shop's payment service.
package main

import (
	"context"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/payments"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/service"
)

func main() {
	service.Main("payments", func(ctx context.Context, s service.Settings) (service.Service, error) {
		p, err := payments.Open(ctx, s.Database)
		if err != nil {
			return nil, err
		}
		p.Latency = s.Latency
		return p, nil
	})
}
