package displayd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/picube/picube-build/layers/display/hd44780sim"
)

var modules = []hd44780sim.Options{
	{Columns: 16, Rows: 2}, {Columns: 20, Rows: 2}, {Columns: 20, Rows: 4}, {Columns: 40, Rows: 2},
	{Columns: 16, Rows: 1}, {Columns: 16, Rows: 1, Split: true},
	{Columns: 20, Rows: 4, Clock: 400_000},
}

// full is a text that fills the module, each cell another character than its
// neighbours.
func full(o hd44780sim.Options, first byte) []byte {
	cells := make([]byte, o.Columns*o.Rows)
	for i := range cells {
		cells[i] = '0' + (first+byte(i))%40
	}
	cells[len(cells)-1] = '$'
	return cells
}

func rows(o hd44780sim.Options, cells []byte) []string {
	var lines []string
	for line := range slices.Chunk(cells, o.Columns) {
		lines = append(lines, string(line))
	}
	return lines
}

// TestLCDFromAnyState holds that whatever the module was left in, it shows
// what it is told to, in time.
func TestLCDFromAnyState(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, o := range modules {
		for i := range 200 {
			m := hd44780sim.New(o)
			m.Sleep(50 * time.Millisecond)
			if i > 0 {
				m.Scramble(r.Uint32)
			}
			l := NewLCD(m, o.Columns, o.Rows, m.Sleep)
			if err := l.Init([][8]byte{{1, 2, 4, 8, 16}}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(m.Lines(), ""); strings.Trim(got, " ") != "" {
				t.Fatalf("%+v: not empty: %q", o, got)
			}
			for first := range byte(3) {
				cells := full(o, first)
				if err := l.Show(cells); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(m.Lines(), rows(o, cells)) {
					t.Fatalf("%+v, state %d:\n%q, want\n%q", o, i, m.Lines(), rows(o, cells))
				}
			}
			// Out of an unknown state the first nibbles may come too early or
			// change with E; a fresh module has no excuse.
			if i == 0 && len(m.Faults()) > 0 {
				t.Fatalf("%+v: %q", o, m.Faults())
			}
			if !m.Light() || m.Held() > 20*time.Millisecond {
				t.Fatalf("%+v: light %v, bus held %v", o, m.Light(), m.Held())
			}
		}
	}
}

func TestLCDWritesWhatDiffers(t *testing.T) {
	o := modules[0]
	m := hd44780sim.New(o)
	m.Sleep(time.Second)
	l := NewLCD(m, o.Columns, o.Rows, m.Sleep)
	if err := l.Init(nil); err != nil {
		t.Fatal(err)
	}
	show := func(text string) int {
		t.Helper()
		before := m.Finished()
		if err := l.Show(fmt.Appendf(nil, "%-32s", text)); err != nil {
			t.Fatal(err)
		}
		return m.Finished() - before
	}
	for _, tt := range []struct {
		text string
		want int
	}{
		{"rpi1", 5}, {"rpi1", 0}, {"rpi2", 2}, {"r-i2", 2}, {"x-x2", 4}, {"x  2 ....", 3 + 4 + 1},
	} {
		if got := show(tt.text); got != tt.want {
			t.Errorf("%q: %d instructions, want %d", tt.text, got, tt.want)
		}
		if got := m.Lines()[0]; got != fmt.Sprintf("%-16s", tt.text) {
			t.Errorf("%q shows as %q", tt.text, got)
		}
	}
}

func TestLCDLightAndGlyphs(t *testing.T) {
	o := modules[2]
	m := hd44780sim.New(o)
	m.Sleep(time.Second)
	l := NewLCD(m, o.Columns, o.Rows, m.Sleep)
	if err := l.Init([][8]byte{{}, {0x04, 0x0e, 0x1f}}); err != nil {
		t.Fatal(err)
	}
	cells := bytes.Repeat([]byte{' '}, 80)
	cells[79] = 1
	if err := l.Show(cells); err != nil {
		t.Fatal(err)
	}
	if got := m.Lines()[3]; !strings.HasSuffix(got, " \ue001") {
		t.Errorf("last line %q", got)
	}
	if got := m.Glyph(1); got != [8]byte{0x04, 0x0e, 0x1f} {
		t.Errorf("glyph %v", got)
	}
	for _, on := range []bool{false, true, false} {
		if err := l.Light(on); err != nil || m.Light() != on {
			t.Errorf("light %v: %v %v", on, m.Light(), err)
		}
		if err := l.Check(); err != nil {
			t.Error(err)
		}
	}
	m.Unplug()
	if err := l.Check(); err == nil {
		t.Error("an absent module is there")
	}
	m.Plug()
	if err := l.Check(); err == nil {
		t.Error("a module that lost its power is as it was")
	}
}
