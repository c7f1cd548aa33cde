package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/picube/picube-build/builder/image"
)

// sumsFile holds the digests of the images beside it, as sha256sum(1) prints
// them.
const sumsFile = "SHA256SUMS"

func (c *cli) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Check that an image is whole",
		Long: `verify checks an image, or a card in a reader: the partition table, both file
systems, what the board needs to start, the files of all packages, and the
image's digest if there is a ` + sumsFile + ` beside it.`,
		Args:              imageArgs(1, 1),
		ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			faults, err := verify(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.json {
				err = c.printJSON(map[string]any{"image": args[0], "whole": len(faults) == 0, "faults": faults})
			} else {
				for _, f := range faults {
					fmt.Fprintf(c.stdout, "%s: %s\n", args[0], f)
				}
				if len(faults) == 0 {
					fmt.Fprintf(c.stdout, "%s is whole.\n", args[0])
				}
			}
			if len(faults) > 0 {
				return errReported
			}
			return err
		},
	}
}

// verify returns what is wrong with an image, one fault per string.
func verify(ctx context.Context, path string) ([]string, error) {
	f, size, err := openImage(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	faults := []string{}
	if err := image.Check(ctx, f, size); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		faults = strings.Split(err.Error(), "\n")
	}
	want, err := recordedDigest(path)
	if err != nil || want == "" {
		return faults, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, io.NewSectionReader(f, 0, size)}); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		faults = append(faults, fmt.Sprintf("digest: SHA-256 is %s, %s says %s", got, sumsFile, want))
	}
	return faults, nil
}

// recordedDigest returns an image's digest of when it was built, or "".
func recordedDigest(path string) (string, error) {
	sums, err := os.Open(filepath.Join(filepath.Dir(path), sumsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", sumsFile, cause(err))
	}
	defer sums.Close()
	lines := bufio.NewScanner(sums)
	for lines.Scan() {
		sum, name, ok := strings.Cut(lines.Text(), " ")
		if ok && strings.TrimLeft(name, " *") == filepath.Base(path) {
			return sum, nil
		}
	}
	return "", lines.Err()
}

// contextReader stops reading when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
