// Command picube-node runs on every card: as /init in the initramfs, as the
// units picube-*.service, and for a person who wants to know how the node is.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/picube/picube-build/layers/boot/bootd"
)

func main() {
	if os.Getpid() == 1 {
		bootd.Main(func(root, boot string) error { // never returns: it becomes the real init
			_, err := identity(root, boot)
			return err
		})
	}
	spareMemory()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	go settle(ctx)
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "picube-node:", err)
		os.Exit(1)
	}
}
