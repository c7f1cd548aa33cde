package fand

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"
	"time"

	"github.com/picube/picube-build/layers/status/statusd"
)

// SoC is the processor's sensor below a root file system.
func SoC(root fs.FS) func(context.Context) (float64, error) {
	return func(context.Context) (float64, error) { return statusd.Temperature(root, statusd.ThermalZone) }
}

// Hottest follows the hottest of some nodes: its own sensor, which must work,
// and the status pages of the others, which may be switched off.
type Hottest struct {
	Own  func(context.Context) (float64, error)
	URLs []string // of the others' status in JSON
	HTTP *http.Client
	Now  func() time.Time

	asked   time.Time
	hottest float64
}

// Times of asking; a node's temperature changes in minutes.
const (
	askEvery   = 20 * time.Second
	askTimeout = 3 * time.Second
	maxAnswer  = 64 << 10
)

// Temperature returns °C.
func (h *Hottest) Temperature(ctx context.Context) (float64, error) {
	own, err := h.Own(ctx)
	if err != nil {
		return 0, err
	}
	if now := h.Now(); h.asked.IsZero() || now.Sub(h.asked) >= askEvery {
		h.asked, h.hottest = now, h.ask(ctx)
	}
	return max(own, h.hottest), nil
}

// ask returns the highest temperature that the others tell.
func (h *Hottest) ask(ctx context.Context) float64 {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers := make([]float64, len(h.URLs))
	var all sync.WaitGroup
	for i, url := range h.URLs {
		all.Go(func() {
			if t, err := fetch(ctx, h.HTTP, url); err == nil {
				answers[i] = t
			}
		})
	}
	all.Wait()
	hottest := 0.0
	for _, t := range answers {
		hottest = max(hottest, t)
	}
	return hottest
}

func fetch(ctx context.Context, client *http.Client, url string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var s statusd.Status
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&s); err != nil {
		return 0, err
	}
	if s.Temperature == nil || *s.Temperature > 150 {
		return 0, fmt.Errorf("%s: cannot use its temperature", url)
	}
	return *s.Temperature, nil
}
