// Package configured asks dpkg on the running card to configure what the
// build left unpacked. dpkg itself remembers how far it came, so a power cut
// costs nothing but the time since.
package configured

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

const statusFile = "/var/lib/dpkg/status"

// Pending returns the packages in a dpkg database that are not configured,
// sorted: those whose status is neither "installed" nor "config-files".
func Pending(status io.Reader) ([]string, error) {
	var pending []string
	name := ""
	sc := bufio.NewScanner(status)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), ": ")
		switch key {
		case "Package":
			name = value
		case "Status":
			words := strings.Fields(value)
			state := words[len(words)-1]
			if state != "installed" && state != "config-files" && state != "not-installed" {
				pending = append(pending, name)
			}
		}
	}
	slices.Sort(pending)
	return pending, sc.Err()
}

// Run configures what is pending and tells log what it does.
func Run(ctx context.Context, log io.Writer) error {
	f, err := os.Open(statusFile)
	if err != nil {
		return err
	}
	pending, err := Pending(f)
	f.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", statusFile, err)
	}
	if len(pending) == 0 {
		return nil
	}
	fmt.Fprintf(log, "configuring %d packages: %s\n", len(pending), strings.Join(pending, " "))
	cmd := exec.CommandContext(ctx, "dpkg", "--configure", "-a", "--force-confold")
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("dpkg: cannot configure %s: %w", strings.Join(pending, " "), err)
	}
	return nil
}
