//go:build long

package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stress makes a thousand files below $1 and moves, links, changes and removes
// them, and fills and half empties a large folder.
const stress = `sudo mkdir -p $1 && cd $1 && sudo perl -we '
srand(1); my (@files, @dirs); @dirs = (".");
for my $i (0 .. 999) {
	my $name = $dirs[rand @dirs] . "/$i-" . "n" x rand 200;
	my $kind = int rand 10;
	if ($kind == 0) { mkdir $name or die "$name: $!"; push @dirs, $name; next }
	if ($kind == 1 && @files) { link $files[rand @files], $name or die "$name: $!" }
	elsif ($kind == 2 && @files) { my $j = rand @files; rename $files[$j], $name or die "$name: $!"; $files[$j] = $name; next }
	elsif ($kind == 3 && @files) { unlink splice @files, rand @files, 1 or die $!; next }
	elsif ($kind == 4 && @files) { truncate $files[rand @files], rand 200000 or die $!; next }
	else { open my $f, ">", $name or die "$name: $!"; print $f chr(32 + $i % 90) x rand 2 ** rand 17; close $f or die $! }
	push @files, $name;
}
mkdir "large";
for my $i (0 .. 2999) { open my $f, ">", "large/entry-$i-" . "l" x 100 or die $! }
for my $i (0 .. 1499) { unlink "large/entry-" . 2 * $i . "-" . "l" x 100 or die $! }
'`

// TestRootUnderStress has Debian's kernel use our root file system: grown while
// it is mounted, shuffled by a thousand files, cut off in the middle. Anything
// that the kernel finds wrong is a panic.
func TestRootUnderStress(t *testing.T) {
	cards := buildCards(t, "picube.hcl")
	n := cards.start(t, newEmulator(t), "rpi1", 1, nil)
	up(t, n)
	if got := ask(t, n, "sudo mount -o remount,errors=panic / && findmnt -no OPTIONS /"); !strings.Contains(got, "errors=panic") {
		t.Errorf("the root is mounted with %s", got)
	}
	if got := ask(t, n, "df -BG --output=size / | tail -1 | tr -d ' '"); got != "4G" {
		t.Errorf("the root has %s of a card of 4 GiB", got)
	}
	digests := "cd /var/kept && sudo find . -type f -print0 | sort -z | sudo xargs -0 sha256sum | sha256sum"
	ask(t, n, "set -- /var/kept; "+stress+"; sync")
	want := ask(t, n, digests)

	ctx, cancel := context.WithCancel(t.Context())
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		for ctx.Err() == nil { // until there is no power to answer
			if _, err := n.Run(ctx, "set -- /var/lost/$RANDOM; "+stress); err != nil {
				return
			}
		}
	}()
	time.Sleep(8 * time.Second)
	n.PullPlug()
	cancel()
	<-cut
	root := filepath.Join(t.TempDir(), "root.ext4")
	fsck := func(options string, want int) {
		t.Helper()
		if err := n.CopyPartition(2, root); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("e2fsck", options, root)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() > want {
			t.Errorf("e2fsck %s: %v\n%s", options, cmd.ProcessState, out)
		}
	}
	fsck("-fp", 1) // what may be done unasked: the journal, and counters that follow from the rest

	if err := n.PlugIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	up(t, n)
	if got := ask(t, n, digests); got != want {
		t.Error("files that were on the card before the plug was pulled are not what they were")
	}
	if got := ask(t, n, "sudo dmesg | grep -i 'ext4-fs.*\\(error\\|warning\\)'; true"); got != "" {
		t.Errorf("the kernel complains: %s", got)
	}
	off, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := n.Shutdown(off); err != nil {
		t.Error(err)
	}
	fsck("-fn", 0)
}
