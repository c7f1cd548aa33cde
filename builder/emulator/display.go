package emulator

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/picube/picube-build/builder/report"
)

// display shows how nodes come up: a table that is redrawn, a line per stage,
// or a JSON object per line.
type display struct {
	out   io.Writer
	mode  report.Mode
	quiet bool // the console of a node has the screen
	width func() int
	tick  <-chan time.Time
	now   func() time.Time

	mu    sync.Mutex
	nodes []*Node
	drawn int  // lines of the table on the screen
	over  bool // nothing more will happen

	events chan Event
	done   chan struct{}
	wg     sync.WaitGroup
}

// message is a line of --json.
type message struct {
	Node    string   `json:"node,omitempty"`
	Seconds *float64 `json:"seconds,omitempty"` // since the node was switched on
	Stage   string   `json:"stage,omitempty"`
	Address string   `json:"address,omitempty"`
	Error   string   `json:"error,omitempty"`
	Message string   `json:"message,omitempty"`
	// Stages is the summary: when the node reached each stage.
	Stages map[string]float64 `json:"stages,omitempty"`
}

// maxEvents are more than nodes could cause while one line is written.
const maxEvents = 4096

func newDisplay(o Options, now func() time.Time) *display {
	d := &display{
		out: o.Out, mode: o.Mode, quiet: o.Console != "" && o.Mode != report.JSON,
		width: o.Width, tick: o.Tick, now: now,
		events: make(chan Event, maxEvents), done: make(chan struct{}),
	}
	if d.width == nil {
		d.width = func() int { return 80 }
	}
	return d
}

func (d *display) add(n *Node) { d.nodes = append(d.nodes, n) }

// event never blocks a node.
func (d *display) event(e Event) {
	select {
	case d.events <- e:
	default:
	}
}

// start begins to show; all nodes are added.
func (d *display) start() {
	d.wg.Go(func() {
		for {
			select {
			case e := <-d.events:
				d.show(e)
			case <-d.tick:
				d.draw()
			case <-d.done:
				for {
					select {
					case e := <-d.events:
						d.show(e)
					default:
						d.draw()
						return
					}
				}
			}
		}
	})
}

// close shows what is left to show.
func (d *display) close() {
	close(d.done)
	d.wg.Wait()
}

func (d *display) show(e Event) {
	if d.quiet || d.mode == report.Live {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	seconds := e.Since.Seconds()
	if d.mode == report.JSON {
		m := message{Node: e.Node, Seconds: &seconds, Stage: e.Stage.String(), Address: d.address(e.Node)}
		if e.Err != nil {
			m.Error = e.Err.Error()
		}
		d.json(m)
		return
	}
	if e.Err == nil {
		fmt.Fprintf(d.out, "%7.1fs  %-12s %s\n", seconds, e.Node, e.Stage)
	}
}

func (d *display) address(node string) string {
	i := slices.IndexFunc(d.nodes, func(n *Node) bool { return n.card.Name == node })
	return d.nodes[i].card.Address.String()
}

func (d *display) json(m message) {
	if b, err := json.Marshal(m); err == nil {
		d.out.Write(append(b, '\n'))
	}
}

// note shows a line that is about no node.
func (d *display) note(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mode == report.JSON {
		d.json(message{Message: text})
		return
	}
	fmt.Fprintln(d.out, text)
}

// draw shows the table, over the one that stands there.
func (d *display) draw() {
	if d.quiet || d.mode != report.Live {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.over {
		d.redraw()
	}
}

// redraw draws the table. d.mu is held.
func (d *display) redraw() {
	rows := [][]string{{"NODE", "STAGE", "SINCE", "ADDRESS", "LAST LINE"}}
	for _, n := range d.nodes {
		n.mu.Lock()
		stage, at, began := n.stage, n.reached[n.stage], n.began
		if n.err != nil {
			stage = Off
		}
		n.mu.Unlock()
		since := ""
		if stage != Off {
			since = (d.now().Sub(began) - at).Truncate(time.Second).String()
		}
		last := ""
		if lines := n.console.tail(1); len(lines) > 0 {
			last = lines[0]
		}
		rows = append(rows, []string{n.card.Name, stage.String(), since, n.card.Address.String(), last})
	}
	var b strings.Builder
	if d.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", d.drawn)
	}
	for _, line := range table(rows, d.width()) {
		b.WriteString("\x1b[2K" + line + "\n")
	}
	d.drawn = len(rows)
	io.WriteString(d.out, b.String())
}

// table lays rows out in columns and cuts them to a width.
func table(rows [][]string, width int) []string {
	var widths []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var lines []string
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		line := []rune(strings.ReplaceAll(b.String(), "\t", " "))
		lines = append(lines, strings.TrimRight(string(line[:min(len(line), max(0, width-1))]), " "))
	}
	return lines
}

// summary shows when each node reached what people ask for: until, and login
// and ready if anybody came as far. With last nothing is shown after it.
func (d *display) summary(nodes []*Node, until Stage, last bool) {
	// What came before is shown before.
	for len(d.events) > 0 {
		time.Sleep(time.Millisecond)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = last
	when := make([]map[Stage]time.Duration, len(nodes))
	for i, n := range nodes {
		_, when[i] = n.Stage()
	}
	columns := slices.DeleteFunc(stagesFrom(Kernel), func(s Stage) bool {
		asked := s == until || s == Login || s == Ready
		return !asked || !slices.ContainsFunc(when, func(reached map[Stage]time.Duration) bool { return reached[s] > 0 })
	})
	header := []string{"NODE", "ADDRESS"}
	for _, s := range columns {
		header = append(header, strings.ToUpper(s.String()))
	}
	rows := [][]string{header}
	for i, n := range nodes {
		reached := when[i]
		if d.mode == report.JSON {
			m := message{Node: n.card.Name, Address: n.card.Address.String(), Stages: map[string]float64{}}
			for s, at := range reached {
				m.Stages[s.String()] = at.Seconds()
			}
			d.json(m)
			continue
		}
		row := []string{n.card.Name, n.card.Address.String()}
		for _, s := range columns {
			cell := "-"
			if at, ok := reached[s]; ok {
				cell = fmt.Sprintf("%.1fs", at.Seconds())
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	if d.mode == report.JSON {
		return
	}
	if d.mode == report.Live && !d.quiet {
		d.redraw()
		d.drawn = 0
	}
	for _, line := range table(rows, d.width()) {
		fmt.Fprintln(d.out, line)
	}
}
