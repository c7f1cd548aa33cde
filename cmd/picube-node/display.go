package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/picube/picube-build/layers/display/displayd"
	"github.com/picube/picube-build/layers/nodeconf"
	"github.com/picube/picube-build/layers/status/statusd"
)

// display shows how the node is until ctx ends.
func display(ctx context.Context) error {
	n, config, err := displays()
	if err != nil {
		return err
	}
	live := &statusd.Live{Node: n, Now: time.Now}
	log := logger()
	var daemons []*displayd.Daemon
	for _, d := range config.Displays {
		first := true
		daemons = append(daemons, &displayd.Daemon{
			Display: d, Face: face(d), Now: time.Now, Pause: pause, Log: log,
			State: func(ctx context.Context) displayd.State {
				if first {
					first = false
					return displayd.StateOf(live.AtOnce(), time.Now())
				}
				return displayd.StateOf(live.Status(ctx), time.Now())
			},
		})
	}
	return displayd.RunAll(ctx, daemons)
}

// farewell says on each display that the power may be cut.
func farewell() error {
	n, config, err := displays()
	if err != nil {
		return err
	}
	for _, d := range config.Displays {
		err = errors.Join(err, displayd.Goodbye(d, face(d), n.Hostname))
	}
	return err
}

func displays() (*nodeconf.Node, displayd.Config, error) {
	var config displayd.Config
	n, err := loadPublished()
	if err != nil {
		return nil, config, err
	}
	_, err = n.Layer(displayd.Section, &config)
	return n, config, err
}

func face(d displayd.Display) displayd.Face {
	if d.Kind == "console" {
		return displayd.NewConsoleFace(displayd.OpenConsole)
	}
	return displayd.NewLCDFace(d, func() (displayd.Bus, error) { return displayd.OpenI2C(d) }, time.Sleep)
}

// logger writes to the journal, which adds the time.
func logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
}

// markLayers leaves a file for each layer that has a section in node.yaml, for
// the conditions of the layers' units.
func markLayers(n *nodeconf.Node) error {
	if err := os.RemoveAll(layerMarks); err != nil {
		return err
	}
	if err := os.MkdirAll(layerMarks, 0o755); err != nil {
		return err
	}
	for name := range n.Layers {
		if err := os.WriteFile(fmt.Sprintf("%s/%s", layerMarks, name), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const layerMarks = "/run/picube/layers"
