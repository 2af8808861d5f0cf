package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/ringmaster-dev/ringmaster/examples/order-flow/audit"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/deliveries"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/load"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/orders"
	"github.com/ringmaster-dev/ringmaster/examples/order-flow/payments"
)

// shop is the three services on their databases.
type shop struct {
	orders     *orders.Service
	payments   *payments.Service
	deliveries *deliveries.Service
}

func databaseFile(dir, service string) string { return filepath.Join(dir, service+".db") }

// openShop opens the databases in dir and puts stock and money into new ones.
func openShop(ctx context.Context, dir string) (*shop, error) {
	var s shop
	var err error
	if s.orders, err = orders.Open(ctx, databaseFile(dir, "orders")); err != nil {
		return nil, err
	}
	if s.payments, err = payments.Open(ctx, databaseFile(dir, "payments")); err != nil {
		return nil, errors.Join(err, s.orders.Close())
	}
	if s.deliveries, err = deliveries.Open(ctx, databaseFile(dir, "deliveries")); err != nil {
		return nil, errors.Join(err, s.orders.Close(), s.payments.Close())
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return &s, nil
}

func (s *shop) open(ctx context.Context) error {
	items, err := load.Items()
	if err != nil {
		return err
	}
	accounts, err := load.Accounts()
	if err != nil {
		return err
	}
	return errors.Join(s.orders.Stock(ctx, items), s.payments.Fund(ctx, accounts))
}

func (s *shop) close() error {
	return errors.Join(s.orders.Close(), s.payments.Close(), s.deliveries.Close())
}

func (s *shop) books() audit.Books {
	return audit.Books{Orders: s.orders.DB(), Payments: s.payments.DB(), Deliveries: s.deliveries.DB()}
}
