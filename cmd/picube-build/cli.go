package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1   // the work couldn't be done, or a check found a fault
	exitUsage       = 2   // the command line or the blueprint is wrong
	exitInterrupted = 130 // Ctrl-C
)

// cli is the host as the verbs see it, and the global flags.
type cli struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            map[string]string

	json    bool
	offline bool
	verbose bool
}

// host is the real one.
func host() *cli {
	c := &cli{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: map[string]string{}}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		c.env[name] = value
	}
	return c
}

// usageError is a mistake of the user's, not of the build.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errReported is an error whose message is printed already.
var errReported = errors.New("reported")

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, c *cli) int {
	root := c.rootCommand()
	root.SetArgs(goFlags(args))
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	return c.failed(ctx, err)
}

// failed says what went wrong and returns the exit code.
func (c *cli) failed(ctx context.Context, err error) int {
	// Some mistakes in a blueprint show only when sources are asked.
	var diags hcl.Diagnostics
	if errors.As(err, &diags) {
		err = c.mistakes(diags)
	}
	if !errors.Is(err, errReported) {
		c.printError(err)
	}
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case ctx.Err() != nil:
		return exitInterrupted
	}
	return exitFailed
}

// mistakes shows diagnostics with the lines that they are about.
func (c *cli) mistakes(diags hcl.Diagnostics) error {
	if c.json {
		return errors.Join(usageError{errReported}, c.printJSON(checkResult(diags)))
	}
	files := map[string]*hcl.File{}
	for _, d := range diags {
		if d.Subject == nil {
			continue
		}
		src, err := readBounded(d.Subject.Filename)
		if err != nil {
			return err
		}
		files[d.Subject.Filename] = &hcl.File{Bytes: src}
	}
	c.printDiagnostics(files, diags)
	return usageError{errReported}
}

func (c *cli) printError(err error) {
	if c.json {
		_ = c.printJSON(map[string]string{"error": err.Error()})
		return
	}
	fmt.Fprintln(c.stderr, "picube-build:", err)
}

func (c *cli) printJSON(v any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// goFlags lets -var and -var-file begin with one dash, as Terraform's do.
func goFlags(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if a == "--" {
			copy(out[i:], args[i:])
			break
		}
		name, _, _ := strings.Cut(a, "=")
		if name == "-var" || name == "-var-file" {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}

func (c *cli) rootCommand() *cobra.Command {
	root := c.buildCommand()
	root.Use = "picube-build [build] BLUEPRINT"
	root.Short = "Compile a blueprint into bootable cards"
	root.Long = `picube-build compiles a blueprint (one HCL file) into bootable SD cards for a
cube of Raspberry Pis, without privileges, containers or emulators.

Exit codes: 0 done; 1 failed, or a check found a fault; 2 the command line or
the blueprint is wrong; 130 interrupted.`
	root.Version = version()
	root.SuggestionsMinimumDistance = 2
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	flags := root.PersistentFlags()
	flags.BoolVar(&c.json, "json", false, "print results as JSON")
	flags.BoolVar(&c.offline, "offline", false, "use the cache alone, never the network")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "say more")
	root.AddCommand(
		c.buildCommand(),
		c.checkCommand(),
		c.planCommand(),
		c.displayCommand(),
		c.bootCommand(),
		c.updateCommand(),
		c.verifyCommand(),
		c.inspectCommand(),
		c.writeCommand(),
		c.kubeconfigCommand(),
		c.statusCommand(),
		c.introduceCommand(),
		c.cacheCommand(),
		c.fmtCommand(),
		c.importCommand(),
		c.versionCommand(),
	)
	root.SetHelpCommand(&cobra.Command{Hidden: true}) // --help is enough
	return root
}

// version is the module's version as the Go command recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "development"
	}
	return info.Main.Version
}
