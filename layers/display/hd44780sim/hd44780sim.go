// Package hd44780sim is a character LCD as a person sees it: an HD44780 behind
// a PCF8574, byte by byte as they come over I2C. It keeps the controller's
// time: an instruction that comes while it is busy is lost, as on the real
// thing, and noted.
//
// Sources are the data sheets of the HD44780U (Hitachi ADE-207-272) and of the
// PCF8574. Not simulated: the 5x10 font, the cursor, reading the memory.
package hd44780sim

import (
	"errors"
	"fmt"
	"time"
)

// Lines of the expander.
const (
	rs    = 1 << 0
	rw    = 1 << 1
	e     = 1 << 2
	light = 1 << 3
)

// ErrGone is what the bus says when nobody answers.
var ErrGone = errors.New("no such device or address")

// Module is a display. Write and Read are transactions on its bus.
type Module struct {
	columns, rows int
	split         bool // one line whose second half has the address of a second one
	clock         int  // of the bus, Hz

	now  time.Duration // since the module was made
	busy time.Duration // until then
	gone bool

	port byte // the expander's lines

	eightBits bool
	half      bool // the first nibble of a byte is there
	high      byte
	highRS    byte
	twoLines  bool
	on        bool
	entry     byte
	shift     int

	ddram    [0x80]byte // by address; 0x28-0x3f and 0x68-0x7f don't exist
	cgram    [64]byte
	address  byte
	inCGRAM  bool
	faults   []string
	held     time.Duration // the longest transaction
	finished int           // instructions and characters
}

// Options say what the module is.
type Options struct {
	Columns, Rows int
	Split         bool // a 16x1 made of two halves
	Clock         int  // of the bus in Hz, 0: 100 kHz
}

// New returns a module that has just got power.
func New(o Options) *Module {
	if o.Clock == 0 {
		o.Clock = 100_000
	}
	m := &Module{columns: o.Columns, rows: o.Rows, split: o.Split, clock: o.Clock}
	m.Plug()
	return m
}

// Plug gives the module power anew: its memory is forgotten.
func (m *Module) Plug() {
	m.gone = false
	m.port = 0xff
	m.eightBits, m.half, m.twoLines, m.on, m.entry, m.shift = true, false, false, false, 2, 0
	m.address, m.inCGRAM = 0, false
	for i := range m.ddram {
		m.ddram[i] = ' '
	}
	m.cgram = [64]byte{}
	m.busy = m.now + 40*time.Millisecond
}

// Unplug takes the module off the bus.
func (m *Module) Unplug() { m.gone = true }

// Scramble brings the module into some state that it may have been left in;
// random gives its bits.
func (m *Module) Scramble(random func() uint32) {
	coin := func() bool { return random()&1 != 0 }
	m.port = byte(random())
	m.eightBits, m.high, m.highRS = coin(), byte(random())&0xf0, byte(random())&1
	m.half = !m.eightBits && coin()
	m.twoLines, m.on, m.entry, m.shift = coin(), coin(), byte(random())&3, int(random()%40)
	m.address, m.inCGRAM = byte(random())&0x7f, coin()
	for i := range m.ddram {
		m.ddram[i] = byte(random())
	}
	for i := range m.cgram {
		m.cgram[i] = byte(random())
	}
}

// Sleep lets time pass.
func (m *Module) Sleep(d time.Duration) { m.now += d }

// Now is the time that the module has been there.
func (m *Module) Now() time.Duration { return m.now }

// Held is how long the longest transaction had the bus.
func (m *Module) Held() time.Duration { return m.held }

// Faults are the instructions that came too early.
func (m *Module) Faults() []string { return m.faults }

// Finished counts instructions and characters.
func (m *Module) Finished() int { return m.finished }

// Light reports whether the backlight is on.
func (m *Module) Light() bool { return m.port&light != 0 }

// bytes passes the time that n bytes take on the bus, their acknowledgement
// included.
func (m *Module) bytes(n int) { m.now += time.Duration(n) * 9 * time.Second / time.Duration(m.clock) }

// Write is a transaction that sets the expander's lines, byte after byte.
func (m *Module) Write(p []byte) error {
	m.bytes(1) // the address
	if m.gone {
		return ErrGone
	}
	start := m.now
	for _, b := range p {
		m.bytes(1)
		m.set(b)
	}
	m.held = max(m.held, m.now-start)
	return nil
}

// Read is a transaction that reads the expander's lines.
func (m *Module) Read(p []byte) error {
	m.bytes(1 + len(p))
	if m.gone {
		return ErrGone
	}
	for i := range p {
		// The transistor of the backlight pulls its line low.
		p[i] = m.port &^ light
	}
	return nil
}

// set changes the lines. The controller takes over what they were while E was
// high, when E falls.
func (m *Module) set(b byte) {
	before := m.port
	m.port = b
	if before&e == 0 || b&e != 0 {
		return
	}
	if b&(rs|rw|0xf0) != before&(rs|rw|0xf0) && before != 0xff {
		m.fault("lines change with E: %02x to %02x", before, b)
	}
	if before&rw != 0 {
		return
	}
	if m.now < m.busy {
		m.fault("%02x comes %v too early", before, m.busy-m.now)
		return
	}
	switch {
	case m.eightBits: // D0 to D3 aren't connected
		m.execute(before&0xf0, before&rs)
	case m.half:
		m.half = false
		m.execute(m.high|before>>4, m.highRS)
	default:
		m.half, m.high, m.highRS = true, before&0xf0, before&rs
	}
}

func (m *Module) fault(format string, args ...any) {
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

func (m *Module) execute(b, register byte) {
	m.finished++
	m.busy = m.now + 37*time.Microsecond
	if register != 0 {
		m.store(b)
		return
	}
	switch {
	case b&0x80 != 0:
		m.address, m.inCGRAM = b&0x7f, false
	case b&0x40 != 0:
		m.address, m.inCGRAM = b&0x3f, true
	case b&0x20 != 0:
		m.eightBits, m.twoLines = b&0x10 != 0, b&0x08 != 0
	case b&0x10 != 0:
		m.move(b)
	case b&0x08 != 0:
		m.on = b&0x04 != 0
	case b&0x04 != 0:
		m.entry = b & 0x03
	case b&0x02 != 0:
		m.address, m.inCGRAM, m.shift = 0, false, 0
		m.busy = m.now + 1520*time.Microsecond
	case b&0x01 != 0:
		for i := range m.ddram {
			m.ddram[i] = ' '
		}
		m.address, m.inCGRAM, m.shift = 0, false, 0
		m.entry |= 2
		m.busy = m.now + 1520*time.Microsecond
	}
}

// move is "cursor or display shift".
func (m *Module) move(b byte) {
	right := b&0x04 != 0
	switch {
	case b&0x08 == 0:
		m.step(right)
	case right:
		m.shift--
	default:
		m.shift++
	}
}

func (m *Module) store(b byte) {
	if m.inCGRAM {
		m.cgram[m.address&0x3f] = b & 0x1f
		m.address = (m.address + 1) & 0x3f
		return
	}
	m.ddram[m.address&0x7f] = b
	m.step(m.entry&2 != 0)
	if m.entry&1 != 0 {
		m.shift++
	}
}

// step moves the address to the next one that exists.
func (m *Module) step(forward bool) {
	last, gapEnd := byte(0x4f), byte(0)
	if m.twoLines {
		last, gapEnd = 0x67, 0x40
	}
	if forward {
		m.address++
		switch {
		case m.address > last:
			m.address = 0
		case m.twoLines && m.address >= 0x28 && m.address < gapEnd:
			m.address = gapEnd
		}
		return
	}
	m.address--
	switch {
	case m.address > last: // below 0
		m.address = last
	case m.twoLines && m.address >= 0x28 && m.address < gapEnd:
		m.address = 0x27
	}
}

// code is what the controller shows in a cell.
func (m *Module) code(column, row int) byte {
	line, at := row%2, row/2*m.columns+column
	if m.split && column >= m.columns/2 {
		line, at = 1, column-m.columns/2
	}
	if line == 1 && !m.twoLines {
		return ' '
	}
	length := 80
	if m.twoLines {
		length = 40
	}
	at = ((at+m.shift)%length + length) % length
	return m.ddram[line*0x40+at]
}

// Lines are what a person reads, glyphs of one's own as the runes from
// U+E000 on. A display that is off is empty.
func (m *Module) Lines() []string {
	lines := make([]string, m.rows)
	for row := range lines {
		for column := range m.columns {
			r := ' '
			if m.on && !m.gone {
				r = romA00(m.code(column, row))
			}
			lines[row] += string(r)
		}
	}
	return lines
}

// romA00 is the character generator that nearly all modules have (data sheet,
// table 4), without its Japanese half.
func romA00(c byte) rune {
	switch {
	case c < 0x10:
		return 0xe000 + rune(c&7)
	case c == 0x5c:
		return '¥'
	case c == 0x7e:
		return '→'
	case c == 0x7f:
		return '←'
	case c >= 0x20 && c < 0x7e:
		return rune(c)
	case c >= 0x80 && c < 0xa0, c < 0x20:
		return ' '
	}
	upper := map[byte]rune{0xa5: '·', 0xdf: '°', 0xe0: 'α', 0xe1: 'ä', 0xe2: 'ß', 0xe3: 'ε', 0xe4: 'µ', 0xe5: 'σ', 0xe6: 'ρ',
		0xe8: '√', 0xec: '¢', 0xed: '£', 0xee: 'ñ', 0xef: 'ö', 0xf2: 'θ', 0xf3: '∞', 0xf4: 'Ω', 0xf5: 'ü', 0xf6: 'Σ', 0xf7: 'π', 0xfd: '÷', 0xff: '█'}
	if r, ok := upper[c]; ok {
		return r
	}
	return '�'
}

// Glyph returns the rows of a character of one's own.
func (m *Module) Glyph(n int) [8]byte { return [8]byte(m.cgram[n*8:]) }
