package upstream

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/picube/picube-build/builder/lock"
	"github.com/picube/picube-build/builder/source"
)

// Kinds of sources, as the blueprint names them and the lock's inputs begin.
const (
	FromAuto    = "auto"
	FromRelease = "release"
	FromModules = "modules"
	FromMirror  = "mirror"
)

// Source is the name of the input that decides about all others: the source
// of Kubernetes itself.
const Source = inputPrefix + "source"

const inputPrefix = "kubernetes/"

// IsInput reports whether an input of a lock is a part of Kubernetes.
func IsInput(in lock.Input) bool { return strings.HasPrefix(in.Name, inputPrefix) }

// Wish is what a blueprint says.
type Wish struct {
	Version string // "v1.34.4"
	From    string // FromAuto ...
	Mirror  string // URL, for FromMirror
}

// Sources are all the ways to Kubernetes.
type Sources struct {
	Modules Modules
	// Download returns the way to the upstream release, or to a mirror of it.
	Download func(mirror string) Download
	// Say tells a person what was decided.
	Say func(format string, args ...any)
}

// Lock finds out where a version comes from and what it is made of.
func (s Sources) Lock(ctx context.Context, w Wish, arch string) ([]lock.Input, error) {
	var unknown *ErrVersion
	if w.From != FromModules {
		inputs, err := s.Download(w.Mirror).Find(ctx, w.Version, arch)
		if err == nil {
			from := FromRelease
			if w.From == FromMirror {
				from = FromMirror
			}
			for i := range inputs {
				inputs[i].Source = from
			}
			return inputs, nil
		}
		// Content that is not what it claims to be is no reason to look for
		// another source, but to be looked at.
		if w.From != FromAuto || ctx.Err() != nil || errors.Is(err, source.ErrMismatch) {
			return nil, err
		}
		errors.As(err, &unknown)
		s.Say("Kubernetes %s: cannot get the release (%v); it will be compiled from Go modules", w.Version, err)
	}
	_, inputs, err := s.Modules.Find(ctx, w.Version)
	// Where nobody can tell of modules, what the release server said of the
	// version is the better answer.
	if err != nil && unknown != nil {
		return nil, unknown
	}
	return inputs, err
}

// Get returns what a lock says.
func (s Sources) Get(ctx context.Context, w Wish, locked []lock.Input, arch string) (*Set, error) {
	from := find(locked, Source).Source
	if strings.HasPrefix(from, FromModules) {
		return s.Modules.Get(ctx, locked, arch)
	}
	return s.Download(w.Mirror).Get(ctx, locked, arch)
}

// Fits reports whether what was locked is what is wished for.
func (w Wish) Fits(locked []lock.Input) bool {
	in := find(locked, Source)
	kind, _, _ := strings.Cut(in.Source, ",")
	return in.Version == w.Version && (w.From == FromAuto || w.From == kind)
}

// Missing is an input that stands for a wish which no lock fulfils yet.
func (w Wish) Missing() lock.Input {
	return lock.Input{Name: Source, Version: fmt.Sprintf("%s (%s)", w.Version, w.From)}
}

func find(inputs []lock.Input, name string) lock.Input {
	for _, in := range inputs {
		if in.Name == name {
			return in
		}
	}
	return lock.Input{}
}
