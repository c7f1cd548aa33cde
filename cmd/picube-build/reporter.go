package main

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/term"

	"github.com/picube/picube-build/builder/report"
)

// reporter shows progress on standard error; results go to standard output.
func (c *cli) reporter() *report.Reporter { return c.tracedReporter(nil) }

// tracedReporter also fills a trace.
func (c *cli) tracedReporter(trace *report.Trace) *report.Reporter {
	o := report.Options{Out: c.stderr, Now: time.Now, Tick: time.NewTicker(100 * time.Millisecond).C, Verbose: c.verbose, Trace: trace}
	f, ok := c.stderr.(*os.File)
	switch {
	case c.json:
		o.Mode = report.JSON
	case ok && c.isTerminal(f):
		o.Mode = report.Live
		o.Width = func() int { return width(f) }
	}
	return report.New(o)
}

// isTerminal reports whether f shows escape sequences.
func (c *cli) isTerminal(f *os.File) bool {
	if runtime.GOOS == "windows" && c.env["WT_SESSION"] == "" {
		return false // the old console needs to be told first
	}
	return term.IsTerminal(int(f.Fd())) && c.env["TERM"] != "dumb"
}

// width is a terminal's, in columns.
func width(f *os.File) int {
	if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
		return w
	}
	return 80
}
