package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/picube/picube-build/layers/status/statusd"
)

// serve answers with the status page and metrics until ctx ends.
func serve(ctx context.Context) error {
	n, err := loadPublished()
	if err != nil {
		return err
	}
	var config statusd.Config
	if _, err := n.Layer(statusd.Section, &config); err != nil {
		return err
	}
	live := &statusd.Live{Node: n, Now: time.Now}
	h, err := statusd.Handler(n, config, live.Status)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", config.Port))
	if err != nil {
		return err
	}
	return statusd.Serve(ctx, listener, h)
}
