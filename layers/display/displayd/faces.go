package displayd

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// lcdFace is a module as a Face.
type lcdFace struct {
	display Display
	open    func() (Bus, error)
	sleep   func(time.Duration)

	bus Bus
	lcd *LCD
}

// NewLCDFace returns the face of a module whose bus is opened by open.
func NewLCDFace(d Display, open func() (Bus, error), sleep func(time.Duration)) Face {
	return &lcdFace{display: d, open: open, sleep: sleep}
}

func (f *lcdFace) Open() error {
	var glyphs [][8]byte
	for _, g := range f.display.Glyphs {
		dots, err := g.Dots()
		if err != nil {
			return err
		}
		glyphs = append(glyphs, dots)
	}
	bus, err := f.open()
	if err != nil {
		return err
	}
	f.bus, f.lcd = bus, NewLCD(bus, f.display.Columns, f.display.Rows, f.sleep)
	if err := f.lcd.Init(glyphs); err != nil {
		return errors.Join(fmt.Errorf("display 0x%02x: %w", f.display.Address, err), f.Close())
	}
	return nil
}

func (f *lcdFace) Show(lines []string) error {
	cells := make([]byte, 0, f.display.Columns*f.display.Rows)
	for _, line := range lines {
		for _, r := range line {
			cells = append(cells, code(r))
		}
	}
	return f.lcd.Show(cells)
}

func (f *lcdFace) Light(on bool) error { return f.lcd.Light(on) }
func (f *lcdFace) Check() error        { return f.lcd.Check() }

func (f *lcdFace) Close() error {
	if c, ok := f.bus.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// code is a character in the ROM A00 that nearly all modules have (data
// sheet, table 4). What it lacks is replaced by the nearest.
func code(r rune) byte {
	switch {
	case r >= glyphRune && r < glyphRune+8:
		return byte(r - glyphRune)
	case r >= ' ' && r <= '}' && r != '\\':
		return byte(r)
	}
	special := map[rune]byte{
		'°': 0xdf, 'ä': 0xe1, 'ö': 0xef, 'ü': 0xf5, 'ß': 0xe2, 'µ': 0xe4, 'μ': 0xe4, 'ñ': 0xee, 'Ω': 0xf4, 'Σ': 0xf6, 'π': 0xf7,
		'∞': 0xf3, '÷': 0xfd, '·': 0xa5, '→': 0x7e, '←': 0x7f, '█': 0xff, '√': 0xe8, '¥': 0x5c, '¢': 0xec, '£': 0xed,
		'\\': '/', '~': '-', 'Ä': 'A', 'Ö': 'O', 'Ü': 'U', 'é': 'e', 'è': 'e', 'ê': 'e', 'à': 'a', 'á': 'a', 'â': 'a', 'å': 'a',
		'ç': 'c', 'í': 'i', 'ó': 'o', 'ô': 'o', 'ú': 'u', 'ø': 'o', '–': '-', '—': '-', '…': '.', '’': '\'', '“': '"', '”': '"', '„': '"',
	}
	if c, ok := special[r]; ok {
		return c
	}
	return '?'
}

// consoleFace is a virtual console as a Face.
type consoleFace struct {
	open func() (io.WriteCloser, error)
	tty  io.WriteCloser
	last string
}

// NewConsoleFace returns the face of a terminal that open gives.
func NewConsoleFace(open func() (io.WriteCloser, error)) Face { return &consoleFace{open: open} }

func (f *consoleFace) Open() error {
	tty, err := f.open()
	if err != nil {
		return err
	}
	f.tty, f.last = tty, ""
	_, err = io.WriteString(tty, "\x1b[?25l\x1b[2J") // no cursor, nothing else
	return err
}

func (f *consoleFace) Show(lines []string) error {
	text := "\x1b[H" // console_codes(4): to the upper left
	for _, line := range lines {
		text += strings.Map(func(r rune) rune {
			if r >= glyphRune && r < glyphRune+8 {
				return '*'
			}
			return r
		}, line) + "\r\n"
	}
	if text == f.last {
		return nil
	}
	f.last = text
	_, err := io.WriteString(f.tty, text)
	return err
}

func (f *consoleFace) Light(bool) error { return nil }
func (f *consoleFace) Check() error     { return nil }
func (f *consoleFace) Close() error     { return f.tty.Close() }
