package displayd

import (
	"errors"
	"fmt"
	"time"
)

// Bus is an I2C bus on which the module's expander is already chosen: one
// call is one transaction.
type Bus interface {
	Write(p []byte) error
	Read(p []byte) error
}

// How the expander's eight lines are wired to the module on every board sold
// with one: the upper four are the data lines D4 to D7.
const (
	pinRS    = 1 << 0 // 0 instruction, 1 data
	pinE     = 1 << 2 // the module takes over when it falls
	pinLight = 1 << 3
)

// Instructions (HD44780U data sheet, table 6).
const (
	clearDisplay = 0x01 // 1.52 ms, all others 37 µs
	entryMode    = 0x06 // to the right, the display stands still
	displayOff   = 0x08
	displayOn    = 0x0c // without cursor
	functionSet  = 0x20 // 4 bits, 5x8 dots
	twoLines     = 0x08
	setCGRAM     = 0x40
	setDDRAM     = 0x80
)

// nibbleBytes are what one nibble costs on the bus: lines set, E up, E down.
// With six bytes between two instructions the module is ready for the next one
// (37 µs, slow ones 53 µs) even on a bus of 400 kHz.
const nibbleBytes = 3

// transaction bounds how long the bus is held: 16 instructions are 9 ms at
// 100 kHz.
const transaction = 16 * 2 * nibbleBytes

// LCD is a module behind its expander. After an error nothing is known of its
// state: call Init again.
type LCD struct {
	bus           Bus
	sleep         func(time.Duration)
	columns, rows int
	light         byte
	cells         []byte // what is shown, row by row
	queue         []byte
}

// NewLCD returns a module that Init has yet to wake.
func NewLCD(bus Bus, columns, rows int, sleep func(time.Duration)) *LCD {
	return &LCD{bus: bus, sleep: sleep, columns: columns, rows: rows, light: pinLight}
}

// Init brings the module from any state, half an instruction included, to an
// empty display (data sheet, figure 24). glyphs are the rows of up to eight
// characters of one's own, five dots each, the leftmost in bit 4.
func (l *LCD) Init(glyphs [][8]byte) error {
	l.queue = l.queue[:0]
	l.nibble(0x30, 0)
	if err := l.flush(); err != nil {
		return err
	}
	l.sleep(5 * time.Millisecond)
	for _, n := range []byte{0x30, 0x30, functionSet} {
		l.nibble(n, 0)
		if err := l.flush(); err != nil {
			return err
		}
		l.sleep(time.Millisecond)
	}
	function := byte(functionSet)
	if l.rows > 1 || l.split() {
		function |= twoLines
	}
	for _, i := range []byte{function, displayOff, clearDisplay} {
		l.instruction(i)
	}
	if err := l.flush(); err != nil {
		return err
	}
	l.sleep(3 * time.Millisecond) // clones take longer than 1.52 ms
	l.instruction(entryMode)
	if len(glyphs) > 0 {
		l.instruction(setCGRAM)
		for _, g := range glyphs {
			for _, row := range g {
				l.data(row & 0x1f)
			}
		}
	}
	l.instruction(displayOn)
	if err := l.flush(); err != nil {
		return err
	}
	l.cells = make([]byte, l.columns*l.rows)
	for i := range l.cells {
		l.cells[i] = ' '
	}
	return nil
}

// split reports whether the module may be one of those that show the second
// half of their only line from the memory of a second one.
func (l *LCD) split() bool { return l.rows == 1 }

// address is where a cell lies in the module's memory.
func (l *LCD) address(column, row int) byte {
	return byte(row%2*0x40 + row/2*l.columns + column)
}

// Show changes the display to these cells, row by row, and writes only what
// differs: nothing flickers.
func (l *LCD) Show(cells []byte) error {
	if l.cells == nil {
		return errors.New("cannot show anything before Init")
	}
	if len(cells) != len(l.cells) {
		return fmt.Errorf("cannot show %d characters on %dx%d", len(cells), l.columns, l.rows)
	}
	for row := range l.rows {
		l.showRow(row, cells[row*l.columns:][:l.columns], l.cells[row*l.columns:][:l.columns])
	}
	if len(l.queue) == 0 {
		return nil
	}
	// What is written to a module that has just come back would hide from
	// every later look that it was away.
	if err := l.Check(); err != nil {
		return err
	}
	if err := l.flush(); err != nil {
		return err
	}
	copy(l.cells, cells)
	return nil
}

func (l *LCD) showRow(row int, want, have []byte) {
	cursor := -2
	for c := range want {
		if want[c] == have[c] {
			continue
		}
		switch c - cursor {
		case 0:
		case 1: // writing the character between costs as much as the cursor
			l.data(want[cursor])
		default:
			l.instruction(setDDRAM | l.address(c, row))
		}
		l.data(want[c])
		cursor = c + 1
	}
	if half := l.columns / 2; l.split() && cursor > half {
		l.instruction(setDDRAM | 0x40)
		for _, c := range want[half:] {
			l.data(c)
		}
	}
}

// Light switches the backlight.
func (l *LCD) Light(on bool) error {
	light := byte(0)
	if on {
		light = pinLight
	}
	if light == l.light {
		return nil
	}
	l.light = light
	return l.bus.Write([]byte{light})
}

// Check finds out whether the module is there and still as it was left. An
// expander that lost its power comes back with all lines high.
func (l *LCD) Check() error {
	var port [1]byte
	if err := l.bus.Read(port[:]); err != nil {
		return err
	}
	// The line of the backlight reads low while its transistor draws current.
	if port[0]&^pinLight != 0 {
		return errors.New("cannot find the display as it was: it lost its power")
	}
	return nil
}

func (l *LCD) instruction(i byte) { l.byte(i, 0) }
func (l *LCD) data(d byte)        { l.byte(d, pinRS) }

func (l *LCD) byte(b, rs byte) {
	l.nibble(b&0xf0, rs)
	l.nibble(b<<4, rs)
}

func (l *LCD) nibble(n, rs byte) {
	lines := n | rs | l.light
	l.queue = append(l.queue, lines, lines|pinE, lines)
}

// flush sends what is queued and leaves all lines but the light's low.
func (l *LCD) flush() error {
	queue := l.queue
	l.queue = l.queue[:0]
	if len(queue) == 0 {
		return nil
	}
	queue = append(queue, l.light)
	for len(queue) > 0 {
		n := min(len(queue), transaction)
		if err := l.bus.Write(queue[:n]); err != nil {
			l.cells = nil
			return err
		}
		queue = queue[n:]
	}
	return nil
}
