package displayd

import (
	"strings"
	"text/template"
	"time"

	"github.com/picube/picube-build/layers/status/statusd"
)

// Times of the show.
const (
	defaultSeconds = 4
	scrollHold     = 1500 * time.Millisecond // at a long line's ends
	scrollStep     = 400 * time.Millisecond
	// progressFor is how long after the start the display tells of nothing but
	// the node's progress; a node that takes longer has a person before it.
	progressFor = 30 * time.Minute
)

// State is what there is to show.
type State struct {
	Facts    Facts
	Problems []string // shown before everything else
	Progress string   // what the node still has to do; empty: nothing
}

// show decides what a display shows when.
type show struct {
	columns, rows int
	seconds       time.Duration
	pages         [][]*template.Template

	problems string // those that are in the round
	index    int    // of the screen that is shown
	since    time.Time
	screens  [][]string
}

func newShow(d Display) (*show, error) {
	s := &show{columns: d.Columns, rows: d.Rows, seconds: time.Duration(d.Seconds * float64(time.Second))}
	if s.seconds <= 0 {
		s.seconds = defaultSeconds * time.Second
	}
	pages := d.Pages
	if len(pages) == 0 {
		pages = DefaultPages()
	}
	for _, p := range pages {
		var lines []*template.Template
		for _, text := range p.Lines {
			t, err := compile(text, d.glyphNames())
			if err != nil {
				return nil, err
			}
			lines = append(lines, t)
		}
		s.pages = append(s.pages, lines)
	}
	return s, nil
}

// update takes over a new state. A new problem is shown at once.
func (s *show) update(now time.Time, state State) error {
	rendered, err := render(s.pages, state.Facts, s.rows)
	if state.Progress != "" {
		rendered = cut([]string{state.Facts.Host, state.Progress}, s.rows)
	}
	var first [][]string
	for _, p := range state.Problems {
		first = append(first, cut([]string{"! " + state.Facts.Host, p}, s.rows)...)
	}
	s.screens = append(first, rendered...)
	if len(s.screens) == 0 {
		s.screens = [][]string{{state.Facts.Host}}
	}
	if problems := strings.Join(state.Problems, "\n"); problems != s.problems || s.since.IsZero() {
		s.problems, s.index, s.since = problems, 0, now
	}
	s.index %= len(s.screens)
	return err
}

// frame returns the lines to show now, each as wide as the display, and goes
// on to the next screen when it is time.
func (s *show) frame(now time.Time) []string {
	if len(s.screens) > 1 && now.Sub(s.since) >= s.duration(s.screens[s.index]) {
		s.index, s.since = (s.index+1)%len(s.screens), now
	}
	// A lone screen scrolls again and again.
	elapsed := now.Sub(s.since)
	if len(s.screens) == 1 {
		elapsed %= s.duration(s.screens[0])
	}
	lines := make([]string, s.rows)
	for i := range lines {
		text := ""
		if i < len(s.screens[s.index]) {
			text = s.screens[s.index][i]
		}
		lines[i] = window([]rune(text), s.columns, elapsed)
	}
	return lines
}

func (s *show) duration(lines []string) time.Duration {
	longest := 0
	for _, l := range lines {
		longest = max(longest, len([]rune(l)))
	}
	if longest <= s.columns {
		return s.seconds
	}
	return max(s.seconds, 2*scrollHold+time.Duration(longest-s.columns)*scrollStep)
}

// window is the part of a line that is seen after a time.
func window(line []rune, columns int, elapsed time.Duration) string {
	if len(line) <= columns {
		return string(line) + strings.Repeat(" ", columns-len(line))
	}
	offset := 0
	if elapsed > scrollHold {
		offset = min(int((elapsed-scrollHold)/scrollStep)+1, len(line)-columns)
	}
	return string(line[offset : offset+columns])
}

// Screens returns every screen that a display shows of a state, one after the
// other and as wide as the display; of a line that scrolls, its beginning.
func Screens(d Display, s statusd.Status, now time.Time) ([][]string, error) {
	show, err := newShow(d)
	if err != nil {
		return nil, err
	}
	if err := show.update(now, StateOf(s, now)); err != nil {
		return nil, err
	}
	var out [][]string
	for i := range show.screens {
		show.index, show.since = i, now
		out = append(out, show.frame(now))
	}
	return out, nil
}
