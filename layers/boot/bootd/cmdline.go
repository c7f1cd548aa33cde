package bootd

import (
	"strconv"
	"strings"
	"time"
)

// commandLine is what the kernel's command line says to init, in the words of
// the kernel's Documentation/admin-guide/kernel-parameters.txt.
type commandLine struct {
	root    string // root=: /dev/x, PARTUUID=, UUID= or LABEL=
	fsType  string // rootfstype=
	flags   string // rootflags=
	ro      bool
	wait    time.Duration // rootwait, rootwait=SECONDS, rootdelay=SECONDS
	init    string        // init=
	debug   bool          // picube.debug: say more, and stay when something fails
	modules map[string][]string
}

// Without a word about it, a card gets so long to appear; with rootwait, so
// long before a reset is tried, which helps a card that hangs.
const (
	shortWait = 30 * time.Second
	longWait  = 3 * time.Minute
)

func parseCommandLine(line string) commandLine {
	c := commandLine{fsType: "ext4", ro: true, wait: shortWait, modules: map[string][]string{}}
	for _, arg := range arguments(line) {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "root":
			c.root = value
		case "rootfstype":
			c.fsType = value
		case "rootflags":
			c.flags = value
		case "ro":
			c.ro = true
		case "rw":
			c.ro = false
		case "rootwait", "rootdelay":
			c.wait = longWait
			if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
				c.wait = time.Duration(seconds) * time.Second
			}
		case "init":
			c.init = value
		case "picube.debug":
			c.debug = true
		default:
			// A module's parameter, as modprobe(8) takes it from here.
			if module, option, ok := strings.Cut(arg, "."); ok && strings.Contains(option, "=") {
				module = strings.ReplaceAll(module, "-", "_")
				c.modules[module] = append(c.modules[module], option)
			}
		}
	}
	return c
}

// arguments splits the line at spaces that stand outside of double quotes;
// the quotes are dropped.
func arguments(line string) []string {
	var args []string
	var arg strings.Builder
	quoted := false
	flush := func() {
		if arg.Len() > 0 {
			args = append(args, arg.String())
			arg.Reset()
		}
	}
	for _, r := range line {
		switch {
		case r == '"':
			quoted = !quoted
		case (r == ' ' || r == '\n' || r == '\t') && !quoted:
			flush()
		default:
			arg.WriteRune(r)
		}
	}
	flush()
	return args
}
