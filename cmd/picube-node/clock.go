package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/picube/picube-build/layers/clock/clockd"
	"github.com/picube/picube-build/layers/nodeconf"
)

// clock sets a clock that cannot be right, or saves a right one.
func clock(args []string) error {
	if len(args) == 1 && args[0] == "save" {
		return clockd.Save(clockd.SavedFile, time.Now())
	}
	n, err := loadPublished()
	if err != nil {
		return err
	}
	build, err := time.Parse(time.RFC3339, n.NotBefore)
	if err != nil {
		return fmt.Errorf("node.yaml: notBefore: %w", err)
	}
	now := time.Now()
	if sane := clockd.Sane(now, build, clockd.Saved(clockd.SavedFile)); !sane.Equal(now) {
		tv := unix.NsecToTimeval(sane.UnixNano())
		if err := unix.Settimeofday(&tv); err != nil {
			return fmt.Errorf("clock: cannot set it: %w", err)
		}
		fmt.Printf("the clock said %s, it is set to %s\n", now.UTC().Format(time.DateTime), sane.UTC().Format(time.DateTime))
	}
	return clusterTime(n)
}

// clusterTime tells chrony where the cluster's time comes from.
func clusterTime(n *nodeconf.Node) error {
	var config clockd.Config
	if ok, err := n.Layer(clockd.Section, &config); !ok || err != nil {
		return err
	}
	text := config.Sources(address(n))
	if old, err := os.ReadFile(clockd.ConfFile); err == nil && string(old) == text {
		return nil
	}
	return os.WriteFile(clockd.ConfFile, []byte(text), 0o644)
}
