package fand

import (
	"math"
	"time"
)

// Curve says how fast a fan turns at which temperature.
type Curve struct {
	Kind              string  // "gpio": on or off; "pwm": any speed
	Start, Stop, Full float64 // °C
	MinDuty           float64 // the slowest speed that still turns the fan, 0 to 1

	duty    float64
	started time.Time // when the fan began to turn
}

// spinUp is how long a fan gets its full power to begin with: at its lowest
// speed it may not start at all.
const spinUp = 2 * time.Second

// Next returns the speed for a temperature, 0 to 1.
func (c *Curve) Next(celsius float64, now time.Time) float64 {
	want := c.wanted(celsius)
	switch {
	case want == 0:
		c.started = time.Time{}
	case c.duty == 0:
		c.started = now
	}
	c.duty = want
	if want > 0 && now.Sub(c.started) < spinUp {
		return 1
	}
	return want
}

// wanted is the speed without spin-up. Between Stop and Start a fan goes on
// doing what it did.
func (c *Curve) wanted(celsius float64) float64 {
	switch {
	case math.IsNaN(celsius):
		return 1
	case celsius < c.Stop, celsius < c.Start && c.duty == 0:
		return 0
	case c.Kind != "pwm", celsius >= c.Full:
		return 1
	case celsius <= c.Start:
		return c.MinDuty
	}
	duty := c.MinDuty + (1-c.MinDuty)*(celsius-c.Start)/(c.Full-c.Start)
	return math.Ceil(duty*20) / 20 // steps of 5 %, so that nobody hears it hunt
}
