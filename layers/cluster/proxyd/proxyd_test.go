package proxyd

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
)

// backend answers each connection with its name and closes it.
func backend(t *testing.T, name string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			request := make([]byte, 4)
			if _, err := io.ReadFull(c, request); err == nil {
				_, _ = io.WriteString(c, name+" got "+string(request))
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l
}

func TestProxyFindsTheLivingBackend(t *testing.T) {
	a, b := backend(t, "a"), backend(t, "b")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	p := New(slog.New(slog.DiscardHandler), a.Addr().String(), b.Addr().String())
	go func() { done <- p.Serve(ctx, l) }()
	ask := func() string {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "ping"); err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(c)
		return string(answer)
	}
	if got := ask(); got != "a got ping" {
		t.Errorf("answer %q", got)
	}
	a.Close()
	for range 2 {
		if got := ask(); got != "b got ping" {
			t.Errorf("with a gone: answer %q", got)
		}
	}
	p.Set(nil)
	if got := ask(); got != "" {
		t.Errorf("with no backend: answer %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
