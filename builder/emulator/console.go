package emulator

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
)

// Bounds of what is kept of a console in memory; the file has all.
const (
	maxLines = 20000
	maxLine  = 4096
)

// console collects what a node says on its serial line. Other goroutines wait
// for it to change.
type console struct {
	mu      sync.Mutex
	log     io.Writer // everything, as it came
	lines   []string  // without terminal control
	dropped int       // lines that were there before lines[0]
	partial []byte    // of the line that is not complete yet
	screen  io.Writer // a person's, nil if nobody looks
	changed chan struct{}
}

func newConsole(log io.Writer) *console { return &console{log: log, changed: make(chan struct{})} }

// Write takes the next bytes. It fails only if the file can't be written.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.log.Write(p); err != nil {
		return 0, err
	}
	if c.screen != nil {
		c.screen.Write(p)
	}
	for rest := p; len(rest) > 0; {
		part, after, end := bytes.Cut(rest, []byte("\n"))
		c.partial = overwritten(append(c.partial, part...))
		c.partial = c.partial[:min(len(c.partial), maxLine)]
		if rest = after; end {
			c.lines = append(c.lines, plain(string(c.partial)))
			c.partial = c.partial[:0]
		}
	}
	if over := len(c.lines) - maxLines; over > 0 {
		c.lines = slices.Delete(c.lines, 0, over)
		c.dropped += over
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return len(p), nil
}

// overwritten drops what a carriage return within a line overwrites, so that
// systemd's moving stars stay one short line.
func overwritten(line []byte) []byte {
	i := bytes.LastIndexByte(bytes.TrimRight(line, "\r"), '\r')
	return append(line[:0], line[i+1:]...)
}

// since returns the lines from number n on, the incomplete one, the number of
// the next line, and a channel that is closed when there is more.
func (c *console) since(n int) (lines []string, partial string, next int, more <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := min(max(0, n-c.dropped), len(c.lines))
	return slices.Clone(c.lines[at:]), plain(string(c.partial)), c.dropped + len(c.lines), c.changed
}

// tail returns the last lines that say anything.
func (c *console) tail(n int) []string {
	lines, partial, _, _ := c.since(0)
	lines = append(lines, partial)
	var out []string
	for _, line := range slices.Backward(lines) {
		if len(out) == n {
			break
		}
		if line != "" {
			out = append(out, line)
		}
	}
	slices.Reverse(out)
	return out
}

// next completes the line that a machine was cut off in, so that the next one's
// first line is not taken for its rest, and returns the number of that line.
func (c *console) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.partial) > 0 {
		c.lines = append(c.lines, plain(string(c.partial)))
		c.partial = c.partial[:0]
	}
	return c.dropped + len(c.lines)
}

// around returns n lines around the last one with a text: what came before it
// tells more than what came after.
func (c *console) around(text string, n int) []string {
	lines, _, _, _ := c.since(0)
	for i, line := range slices.Backward(lines) {
		if strings.Contains(line, text) {
			return slices.Clone(lines[max(0, i-n*2/3):min(len(lines), i+n/3)])
		}
	}
	return c.tail(n)
}
