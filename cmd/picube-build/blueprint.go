package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/picube/picube-build/builder/blueprint"
	"github.com/picube/picube-build/layers"
	"github.com/picube/picube-build/layers/display/displayd"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
)

// maxBlueprint bounds a blueprint and a variable file before they are parsed.
const maxBlueprint = 1 << 20

// variableFlags are the flags of every verb that reads a blueprint.
type variableFlags struct {
	vars  []string
	files []string
}

func (v *variableFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&v.vars, "var", nil, "set a variable: `name=value`")
	cmd.Flags().StringArrayVar(&v.files, "var-file", nil, "read variables from a `file`")
}

// oneBlueprint is the argument check of those verbs.
func oneBlueprint(cmd *cobra.Command, args []string) error {
	if err := misspeltVerb(cmd, args); err != nil {
		return err
	}
	switch {
	case len(args) == 0:
		return usagef("cannot %s without a blueprint; try: %s blueprints/picube.hcl", verb(cmd), cmd.CommandPath())
	case len(args) > 1:
		return usagef("cannot %s more than one blueprint at a time: %s", verb(cmd), strings.Join(args, " "))
	}
	return nil
}

// misspeltVerb catches `picube-build verfy x.img`, which looks as if verfy were
// a blueprint.
func misspeltVerb(cmd *cobra.Command, args []string) error {
	if cmd.HasParent() || len(args) == 0 {
		return nil
	}
	_, err := os.Stat(args[0])
	meant := cmd.SuggestionsFor(args[0])
	if err == nil || len(meant) == 0 {
		return nil
	}
	return usagef("cannot read %s: %w; did you mean the verb %q?", args[0], cause(err), meant[0])
}

func verb(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return "build"
	}
	return cmd.Name()
}

func completeBlueprint(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"hcl"}, cobra.ShellCompDirectiveFilterFileExt
}

// load reads the blueprint and prints its diagnostics.
func (c *cli) load(path string, v variableFlags) (*blueprint.Blueprint, error) {
	bp, files, diags, err := c.parse(path, v)
	if err != nil {
		return nil, err
	}
	if len(diags) > 0 && !c.json {
		c.printDiagnostics(files, diags)
	}
	if !diags.HasErrors() {
		return bp, nil
	}
	if c.json {
		if err := c.printJSON(checkResult(diags)); err != nil {
			return nil, err
		}
	}
	return nil, usageError{errReported}
}

func (c *cli) parse(path string, v variableFlags) (*blueprint.Blueprint, map[string]*hcl.File, hcl.Diagnostics, error) {
	src, err := readBounded(path)
	if err != nil {
		return nil, nil, nil, usageError{err}
	}
	files := map[string]*hcl.File{path: {Bytes: src}}
	o := blueprint.Options{Boards: boards(), Layers: layers.Blocks(), Vars: map[string]string{}, Env: c.env, SSHKeys: c.sshKeys, CheckLine: checkLine}
	for _, kv := range v.vars {
		name, value, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, nil, nil, usagef("cannot read -var %s: write -var name=value", kv)
		}
		o.Vars[name] = value
	}
	for _, name := range v.files {
		src, err := readBounded(name)
		if err != nil {
			return nil, nil, nil, usageError{err}
		}
		files[name] = &hcl.File{Bytes: src}
		o.VarFiles = append(o.VarFiles, blueprint.VarFile{Path: name, Src: src})
	}
	bp, diags := blueprint.Parse(path, src, o)
	return bp, files, diags, nil
}

// checkLine finds mistakes in a line of a display's page.
func checkLine(line string, glyphs []string) (int, string) {
	var wrong *displayd.TemplateError
	if errors.As(displayd.CheckLine(line, glyphs), &wrong) {
		return wrong.Offset, wrong.Reason
	}
	return 0, ""
}

func readBounded(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, cause(err))
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxBlueprint+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, cause(err))
	}
	if len(data) > maxBlueprint {
		return nil, fmt.Errorf("cannot read %s: it is larger than %d bytes", path, maxBlueprint)
	}
	return data, nil
}

// cause is an error without the operation and path that os puts in front.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func (c *cli) printDiagnostics(files map[string]*hcl.File, diags hcl.Diagnostics) {
	columns, color := 78, false
	if f, ok := c.stderr.(*os.File); ok && c.isTerminal(f) {
		columns, color = width(f), c.env["NO_COLOR"] == ""
	}
	_ = hcl.NewDiagnosticTextWriter(c.stderr, files, uint(columns), color).WriteDiagnostics(diags)
	if n := countErrors(diags); n > 1 {
		fmt.Fprintf(c.stderr, "%d mistakes.\n", n)
	}
}

func countErrors(diags hcl.Diagnostics) int {
	n := 0
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			n++
		}
	}
	return n
}

// diagnostic is one mistake, as --json prints it.
type diagnostic struct {
	Severity string `json:"severity"` // "error" or "warning"
	Summary  string `json:"summary"`
	Detail   string `json:"detail"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
}

type checked struct {
	Valid       bool         `json:"valid"`
	Diagnostics []diagnostic `json:"diagnostics"`
}

func checkResult(diags hcl.Diagnostics) checked {
	r := checked{Valid: !diags.HasErrors(), Diagnostics: []diagnostic{}}
	for _, d := range diags {
		out := diagnostic{Severity: "error", Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			out.Severity = "warning"
		}
		if d.Subject != nil {
			out.File, out.Line, out.Column = d.Subject.Filename, d.Subject.Start.Line, d.Subject.Start.Column
		}
		r.Diagnostics = append(r.Diagnostics, out)
	}
	return r
}

// sshKeys returns the public keys in ~/.ssh, sorted and each once.
func (c *cli) sshKeys() ([]string, error) {
	home := c.env["HOME"]
	if home == "" {
		home = c.env["USERPROFILE"]
	}
	if home == "" {
		return nil, nil
	}
	paths, err := filepath.Glob(filepath.Join(home, ".ssh", "*.pub"))
	if err != nil {
		return nil, fmt.Errorf("cannot look for keys: %w", err)
	}
	var keys []string
	for _, path := range paths {
		data, err := readBounded(path)
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(bytes.NewReader(data))
		for lines.Scan() {
			line := strings.TrimSpace(lines.Text())
			// Host certificates and the like end in .pub too.
			if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err == nil && !strings.Contains(key.Type(), "-cert-") {
				keys = append(keys, line)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}
