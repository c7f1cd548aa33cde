package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/picube/picube-build/builder"
	"github.com/picube/picube-build/builder/gomodule"
	"github.com/picube/picube-build/builder/oci"
	"github.com/picube/picube-build/builder/program"
	"github.com/picube/picube-build/builder/secrets"
	"github.com/picube/picube-build/layers/kubernetes"
	"github.com/picube/picube-build/layers/kubernetes/upstream"
)

// kubernetes wires the host to the layer.
func (c *cli) kubernetes(cache string, source program.Source, identities *secrets.Folder, reporter builder.Reporter) *kubernetes.Layer {
	store := oci.NewStore(filepath.Join(cache, "images"))
	return &kubernetes.Layer{
		Temp:     cache,
		Identity: identities.Cluster,
		Get: func(ctx context.Context, version, arch string, epoch int64) (*upstream.Set, error) {
			compiler := gomodule.Compiler{Env: os.Environ(), Cache: filepath.Join(cache, "modules"), Offline: c.offline}
			release, err := upstream.Find(ctx, compiler, version)
			if err != nil {
				return nil, err
			}
			modules := upstream.Modules{
				Compiler: compiler, Store: store,
				Pause: func(ctx context.Context, arch string) (string, error) { return pauseProgram(ctx, source, cache, arch) },
				Progress: func(name string) (func(done, total int), func()) {
					advance, end := reporter.Phase("compile "+name, 0)
					last := 0
					return func(done, _ int) { advance(int64(done - last)); last = done }, end
				},
			}
			return modules.Get(ctx, release, arch, epoch)
		},
	}
}

// pauseProgram returns a file with our pause program.
func pauseProgram(ctx context.Context, source program.Source, cache, arch string) (string, error) {
	bin, err := source.Program(ctx, "layers/kubernetes/pause", arch)
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "programs", fmt.Sprintf("pause-%x", sha256.Sum256(bin)))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, bin, 0o700); err != nil {
		return "", err
	}
	return file, os.Rename(tmp, file)
}
