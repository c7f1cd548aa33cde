package emulator

import (
	"fmt"
	"regexp"
	"strings"
)

// Stage is how far a node has come since it was switched on.
type Stage int

// Stages in the order in which a node passes them. Off is a node without
// power; the others have been reached.
const (
	Off        Stage = iota
	Firmware         // switched on; what a Pi's firmware does is done by QEMU
	Kernel           // the kernel's first line
	Userspace        // the system's own init runs
	Grown            // the root file system fills the card
	Configured       // nothing is left for dpkg to configure
	Login            // a getty asks for a name
	Joined           // a member of the cluster
	Ready            // takes work
)

var stageNames = [...]string{"off", "firmware", "kernel", "userspace", "grown", "configured", "login", "joined", "ready"}

// String gives the name, as --until takes it.
func (s Stage) String() string {
	if s < 0 || int(s) >= len(stageNames) {
		return fmt.Sprintf("stage(%d)", int(s))
	}
	return stageNames[s]
}

// stagesFrom returns a stage and all that come after it.
func stagesFrom(s Stage) []Stage {
	var all []Stage
	for ; s <= Ready; s++ {
		all = append(all, s)
	}
	return all
}

// MarshalText gives the name.
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseStage reads a stage's name.
func ParseStage(name string) (Stage, error) {
	for i, n := range stageNames {
		if n == name && i > 0 {
			return Stage(i), nil
		}
	}
	return Off, fmt.Errorf("stage %q: cannot wait for it: stages are %s", name, strings.Join(stageNames[1:], ", "))
}

// StageMark is what the node program writes in front of a stage's name, on the
// console or on the port named StagePort: "picube: stage grown".
const StageMark = "picube: stage "

// stageOf says which stage a line of the console tells of, or Off.
func stageOf(line string) Stage {
	if _, name, ok := strings.Cut(line, StageMark); ok {
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		if s, err := ParseStage(name); err == nil {
			return s
		}
		return Off
	}
	switch {
	case strings.Contains(line, "Booting Linux on physical CPU"):
		return Kernel
	case strings.Contains(line, "systemd[1]: "), strings.Contains(line, "Welcome to "):
		return Userspace
	case loginPrompt.MatchString(line):
		return Login
	}
	return Off
}

var (
	// loginPrompt is agetty's: the host name, then "login: " and no newline; a
	// message of the kernel may stand behind it.
	loginPrompt = regexp.MustCompile(`^[-.A-Za-z0-9]+ login: ?(\[ *\d+\.\d+\] .*)?$`)
	// escapes are the terminal control sequences that systemd, getty and
	// shells write (ECMA-48: CSI, OSC and two-byte ones).
	escapes = regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[ -/]*[0-~])`)
)

// deaths are what the console says when a node will not come up any more.
var deaths = []string{
	"Kernel panic - not syncing",
	"You are in emergency mode",
	"Cannot open access to console, the root account is locked",
}

// deathOf returns the part of a line that tells of a node's end, or "".
func deathOf(line string) string {
	for _, d := range deaths {
		if i := strings.Index(line, d); i >= 0 {
			return line[i:]
		}
	}
	return ""
}

// plain takes terminal control out of a line.
func plain(line string) string {
	line = escapes.ReplaceAllString(line, "")
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, line)
}
