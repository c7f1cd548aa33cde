package shell

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
)

// run is one Shell.Run: its processes and what they have used of the limits.
//
// Exactly one task's goroutine runs at any time; it hands over when it waits
// for a pipe or another task. That makes a run deterministic and lets all
// tasks share the tree without locks.
type run struct {
	shell    *Shell
	ctx      context.Context
	current  *task
	tasks    map[*task]struct{} // alive
	ready    []*task            // could go on, longest wait first
	exited   []*task            // wait for another task's end
	nextPID  int
	shellPID int // of the shell whose script runs
	steps    int
	written  int64
	held     int64 // bytes that the running commands hold
	texts    int64 // bytes that words and variables were given
	err      error // why everything is to end
}

// task is a process with a goroutine of its own: the script itself, a
// subshell in a pipeline or in the background.
type task struct {
	pid    int
	wake   chan struct{}
	waits  bool // in a queue
	done   bool
	status int
	signal int // one that was sent to it and not yet delivered
	depth  int
	script string // where it is, for errors
	line   int
}

// Panics that end a process, recovered at its start.
type (
	stopped struct{}             // the whole run ends: run.err
	killed  struct{ signal int } // a signal ends the process
)

func newRun(ctx context.Context, s *Shell) *run {
	r := &run{shell: s, ctx: ctx, tasks: map[*task]struct{}{}, nextPID: firstPID, shellPID: firstPID - 1}
	r.current = r.newTask()
	return r
}

// firstPID is the process number of the script; others count up from it.
const firstPID = 1000

func (r *run) newTask() *task {
	t := &task{pid: r.nextPID, wake: make(chan struct{}, 1)}
	r.nextPID++
	r.tasks[t] = struct{}{}
	return t
}

// fork starts body as a task of its own, which first runs when the caller
// waits for something.
func (r *run) fork(body func() int) *task {
	if limit := r.shell.cfg.Limits.Processes; len(r.tasks) >= limit {
		r.stop(&LimitError{"processes at a time", int64(limit)})
	}
	t := r.newTask()
	t.script, t.line, t.depth = r.current.script, r.current.line, r.current.depth
	r.ready = append(r.ready, t)
	go func() {
		<-t.wake
		r.current = t
		defer func() {
			if e := recover(); e != nil {
				if _, ok := e.(stopped); !ok {
					panic(e)
				}
			}
			t.done = true
			delete(r.tasks, t)
			r.wake(&r.exited)
			r.next()
		}()
		t.status = r.protect(func() int {
			r.alive()
			return body()
		})
	}()
	return t
}

// protect runs a process and turns the panics that end it into its status.
func (r *run) protect(body func() int) (status int) {
	depth := r.current.depth
	defer func() {
		e := recover()
		if e == nil {
			return
		}
		r.current.depth = depth
		switch e := e.(type) {
		case killed:
			status = 128 + e.signal
		case stopped:
			status = 2
			panic(e)
		default:
			r.fail(fmt.Errorf("cannot go on: %v\n%s", e, debug.Stack()))
			panic(stopped{})
		}
	}()
	return body()
}

// main runs the script's own process and then lets those it left behind come
// to their ends.
func (r *run) main(body func() int) (status int, err error) {
	func() {
		defer func() {
			if e := recover(); e != nil {
				if _, ok := e.(stopped); !ok {
					panic(e)
				}
				status = 2
			}
		}()
		status = r.protect(body)
	}()
	for len(r.tasks) > 1 {
		r.yield(&r.exited)
	}
	return status, r.err
}

// fail records why the run ends and lets every waiting task find out.
func (r *run) fail(err error) {
	if r.err == nil {
		r.err = &Error{Script: r.current.script, Line: r.current.line, Err: err}
	}
	for t := range r.tasks {
		if t != r.current {
			r.makeReady(t)
		}
	}
}

// stop ends the whole run; it does not return.
func (r *run) stop(err error) {
	r.fail(err)
	panic(stopped{})
}

// alive ends the calling task if it is to end.
func (r *run) alive() {
	if r.err != nil {
		panic(stopped{})
	}
	if err := r.ctx.Err(); err != nil {
		r.stop(err)
	}
}

// step counts a simple command or a turn of a loop.
func (r *run) step() {
	r.alive()
	if r.steps++; r.steps > r.shell.cfg.Limits.Steps {
		r.stop(&LimitError{"steps", int64(r.shell.cfg.Limits.Steps)})
	}
}

func (r *run) wrote(n int) {
	r.alive()
	if r.written += int64(n); r.written > r.shell.cfg.Limits.Output {
		r.stop(&LimitError{"bytes written", r.shell.cfg.Limits.Output})
	}
}

// took bounds what all variables and arguments hold together by what they were
// ever given.
func (r *run) took(n int) {
	if limit := 64 * r.shell.cfg.Limits.Memory; r.texts+int64(n) > limit {
		r.stop(&LimitError{"bytes of words and variables", limit})
	}
	r.texts += int64(n)
}

// enter counts a level of nesting; the caller calls leave afterwards.
func (r *run) enter() {
	if r.current.depth++; r.current.depth > r.shell.cfg.Limits.Depth {
		r.stop(&LimitError{"levels of nesting", int64(r.shell.cfg.Limits.Depth)})
	}
}

func (r *run) leave() { r.current.depth-- }

var errDeadlock = errors.New("cannot go on: every process waits for another")

func (r *run) makeReady(t *task) {
	if t.waits {
		t.waits = false
		r.ready = append(r.ready, t)
	}
}

// wake lets every task in a queue go on.
func (r *run) wake(queue *[]*task) {
	for _, t := range *queue {
		r.makeReady(t)
	}
	*queue = nil
}

// block makes the calling task wait in a queue.
func (r *run) block(queue *[]*task) {
	r.yield(queue)
	r.alive()
}

func (r *run) yield(queue *[]*task) {
	self := r.current
	*queue = append(*queue, self)
	self.waits = true
	r.next()
	<-self.wake
	r.current = self
}

// next hands over to the task that has been ready longest.
func (r *run) next() {
	if len(r.ready) == 0 {
		if r.err == nil {
			r.err = &Error{Script: r.current.script, Line: r.current.line, Err: errDeadlock}
		}
		for t := range r.tasks {
			r.makeReady(t)
		}
	}
	if len(r.ready) == 0 {
		return
	}
	t := r.ready[0]
	r.ready = r.ready[1:]
	t.wake <- struct{}{}
}

// wait waits for a task's end and returns its status.
func (r *run) wait(t *task) int {
	for !t.done {
		r.block(&r.exited)
	}
	return t.status
}
