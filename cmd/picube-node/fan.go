package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/picube/picube-build/layers/fan/fand"
	"github.com/picube/picube-build/layers/nodeconf"
	"github.com/picube/picube-build/layers/status/statusd"
)

// fan minds the node's fans until ctx ends.
func fan(ctx context.Context, args []string) error {
	n, err := loadPublished()
	if err != nil {
		return err
	}
	var config fand.Config
	if _, err := n.Layer(fand.Section, &config); err != nil {
		return err
	}
	store := keptHandles()
	if len(args) == 1 && args[0] == "full" {
		var all []func() (fand.Output, fand.Tachometer, error)
		for _, f := range config.Fans {
			if f.Kind == "gpio" || f.Kind == "pwm" {
				all = append(all, func() (fand.Output, fand.Tachometer, error) { return openFan(f, store) })
			}
		}
		return fand.Full(all)
	}
	g, ctx := errgroup.WithContext(ctx)
	told := fand.Told{Tell: statusd.SetFan}
	for _, f := range config.Fans {
		tell := told.Add(statusd.Fan{Kind: f.Kind, Duty: 1})
		if f.Kind != "gpio" && f.Kind != "pwm" { // nobody has to mind it
			if err := tell(statusd.Fan{Kind: f.Kind, Duty: 1}); err != nil {
				return err
			}
			continue
		}
		d := &fand.Daemon{
			Curve:       fand.Curve{Kind: f.Kind, Start: f.Start, Stop: f.Stop, Full: f.Full, MinDuty: f.MinDuty},
			Open:        func() (fand.Output, fand.Tachometer, error) { return openFan(f, store) },
			Temperature: sensor(f, n, config.StatusPort),
			Tell:        tell,
			Now:         time.Now,
			Pause:       pause,
			Log:         logger(),
		}
		g.Go(func() error { return d.Run(ctx) })
	}
	return g.Wait()
}

func openFan(f fand.Fan, store fand.Store) (fand.Output, fand.Tachometer, error) {
	var out fand.Output
	var err error
	if f.Kind == "pwm" {
		out, err = fand.OpenPWM("/sys", f.Device, f.Channel)
	} else {
		out, err = store.GPIO(f.Chip, f.Pin)
	}
	if err != nil || f.Tach == nil {
		return out, nil, err
	}
	tach, err := store.Tach(f.Chip, *f.Tach)
	return out, tach, err
}

// sensor is where a fan takes its temperature from.
func sensor(f fand.Fan, n *nodeconf.Node, port int) func(context.Context) (float64, error) {
	own := fand.SoC(os.DirFS("/"))
	if f.Sensor != "cube" {
		return own
	}
	h := &fand.Hottest{Own: own, HTTP: http.DefaultClient, Now: time.Now}
	for _, p := range n.Peers {
		if p.Cube == n.Cube && p.Name != n.Hostname {
			h.URLs = append(h.URLs, fmt.Sprintf("http://%s/status.json", net.JoinHostPort(p.Address, strconv.Itoa(port))))
		}
	}
	return h.Temperature
}

// keptHandles takes over what systemd kept (sd_listen_fds(3)).
func keptHandles() fand.Store {
	store := fand.Store{Socket: os.Getenv("NOTIFY_SOCKET"), Kept: map[string]int{}}
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if pid, pidErr := strconv.Atoi(os.Getenv("LISTEN_PID")); errors.Join(err, pidErr) != nil || pid != os.Getpid() {
		return store
	}
	for i, name := range strings.Split(os.Getenv("LISTEN_FDNAMES"), ":") {
		if i < count {
			unix.CloseOnExec(3 + i)
			store.Kept[name] = 3 + i
		}
	}
	return store
}
