package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
)

// qmp speaks QEMU's machine protocol: docs/interop/qmp-spec.rst. One command
// at a time; the only event that matters is SHUTDOWN.
type qmp struct {
	conn    net.Conn
	answers chan answer
	ended   chan struct{}

	mu     sync.Mutex // held during a command
	reason struct {
		sync.Mutex
		text string
	}
}

type answer struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Description string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Reason string `json:"reason"`
	} `json:"data"`
}

// newQMP takes a connection that QEMU made, and reads from it until it ends.
func newQMP(conn net.Conn) *qmp {
	q := &qmp{conn: conn, answers: make(chan answer, 1), ended: make(chan struct{})}
	go q.read()
	return q
}

func (q *qmp) read() {
	defer close(q.ended)
	defer close(q.answers)
	dec := json.NewDecoder(q.conn)
	for {
		var a answer
		if err := dec.Decode(&a); err != nil {
			return
		}
		switch {
		case a.Event == "SHUTDOWN":
			q.reason.Lock()
			q.reason.text = a.Data.Reason
			q.reason.Unlock()
		case a.Return != nil || a.Error != nil:
			q.answers <- a
		}
	}
}

// wait waits until all that a QEMU which has ended had to say is read.
func (q *qmp) wait() {
	<-q.ended
	q.conn.Close()
}

// shutdownReason says why QEMU ended ("guest-shutdown", "guest-reset", ...), or
// "" as long as it has not said.
func (q *qmp) shutdownReason() string {
	q.reason.Lock()
	defer q.reason.Unlock()
	return q.reason.text
}

// run has QEMU execute a command.
func (q *qmp) run(command string, arguments map[string]any) error {
	_, err := q.ask(command, arguments)
	return err
}

// monitor has QEMU execute a line of its monitor for people: the protocol's own
// commands for snapshots are jobs whose end must be asked for. Such a line says
// something only if it fails.
func (q *qmp) monitor(line string) error {
	said, err := q.ask("human-monitor-command", map[string]any{"command-line": line})
	if err != nil {
		return err
	}
	var text string
	if err := json.Unmarshal(said, &text); err != nil {
		return fmt.Errorf("QEMU: cannot read its answer to %s: %w", line, err)
	}
	if text = strings.TrimSpace(text); text != "" {
		return fmt.Errorf("QEMU: cannot %s: %s", line, text)
	}
	return nil
}

func (q *qmp) ask(command string, arguments map[string]any) (json.RawMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	message := map[string]any{"execute": command}
	if arguments != nil {
		message["arguments"] = arguments
	}
	b, err := json.Marshal(message)
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(b); err != nil {
		return nil, fmt.Errorf("QEMU: cannot tell it to %s: %w", command, err)
	}
	a, ok := <-q.answers
	switch {
	case !ok:
		return nil, fmt.Errorf("QEMU: cannot tell it to %s: %w", command, errGone)
	case a.Error != nil:
		return nil, fmt.Errorf("QEMU: cannot %s: %s", command, a.Error.Description)
	}
	return a.Return, nil
}

var errGone = errors.New("it has ended")
