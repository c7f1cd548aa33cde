package shell

import "context"

type cacheKey struct{}
type program struct{}

const sigPipe = 13

func (r *run) interpret(p *Process, name string, text []byte, args []string) int { return 0 }

func shCommand(ctx context.Context, p *Process) int { return 0 }
