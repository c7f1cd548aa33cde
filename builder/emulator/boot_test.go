//go:build long

package emulator

import (
	"context"
	"testing"
	"time"
)

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestBoot(t *testing.T) {
	ctx := testContext(t)
	c := newCards(t)
	e := newEmulator(t, Config{})
	n, err := e.Start(ctx, c.card(1, ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.WaitStage(ctx, Login); err != nil {
		t.Fatal(err)
	}
	_, reached := n.Stage()
	t.Logf("%v, pace %.1f", reached, e.Pace())
	out, err := n.Run(ctx, "dhcp")
	t.Logf("%q %v", out, err)
}
