package maintscript

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/picube/picube-build/builder/maintscript/shell"
)

var bitmapFont = regexp.MustCompile(`\.(pcf|snf|bdf)(\.gz|\.Z|\.bz2)?$`)

// mkfontscale is what mkfontdir(1) calls, for directories without bitmap
// fonts: fonts.dir is then fonts.scale in order, and encodings.dir what the
// directories of option -e have.
func mkfontscale(ctx context.Context, p *shell.Process) error {
	args := p.Args[1:]
	if len(args) < 3 || strings.Join(args[:3], " ") != "-b -s -l" {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	var encodings []string
	for args = args[3:]; len(args) > 1 && args[0] == "-e"; args = args[2:] {
		text, err := p.ReadFile(args[1] + "/encodings.dir")
		if err != nil {
			return err
		}
		for _, line := range entries(text) {
			name, file, _ := strings.Cut(line, " ./")
			if file != "" { // not of a directory below
				encodings = append(encodings, name+" "+path.Join(p.Path(args[1]), file))
			}
		}
	}
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		p.Unsupported("%s", strings.Join(p.Args, " "))
	}
	files, err := p.Tree.ReadDir(p.Path(args[0]))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(files, bitmapFont.MatchString) {
		p.Unsupported("bitmap fonts in %s", args[0])
	}
	var fonts []string
	if slices.Contains(files, "fonts.scale") {
		text, err := p.ReadFile(args[0] + "/fonts.scale")
		if err != nil {
			return err
		}
		fonts = entries(text)
		slices.Sort(fonts)
	}
	if err := p.WriteFile(args[0]+"/fonts.dir", counted(fonts)); err != nil {
		return err
	}
	slices.Sort(encodings)
	return p.WriteFile(args[0]+"/encodings.dir", counted(encodings))
}

// entries returns the lines of a fonts.dir or its like but for the first,
// which has their number.
func entries(text []byte) []string {
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	return lines[1:]
}

func counted(lines []string) []byte {
	return fmt.Appendf(nil, "%d\n%s", len(lines), strings.Join(append(lines, ""), "\n"))
}
