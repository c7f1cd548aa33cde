package main

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTyping types on a pseudo terminal (pty(7)), whose other end sees what is
// echoed.
func TestTyping(t *testing.T) {
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	ours, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()

	buf := make([]byte, 100)
	echo := func(typed string) string {
		if _, err := person.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		n, err := ours.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		read := string(buf[:n])
		if _, err := ours.WriteString("."); err != nil { // ends what the person sees
			t.Fatal(err)
		}
		seen := ""
		for len(seen) == 0 || seen[len(seen)-1] != '.' {
			n, err := person.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			seen += string(buf[:n])
		}
		return fmt.Sprintf("%q, seen %q", read, seen)
	}
	restore := typing(ours)
	if got, want := echo("a\r"), `"a\r", seen "."`; got != want {
		t.Errorf("typed on a console: %s, want %s", got, want)
	}
	restore()
	if got, want := echo("a\r"), `"a\n", seen "a\r\n."`; got != want {
		t.Errorf("typed afterwards: %s, want %s", got, want)
	}
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	typing(file)()
}
