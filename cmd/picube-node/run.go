package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/picube/picube-build/layers/configure/configured"
	"github.com/picube/picube-build/layers/grow/growd"
	"github.com/picube/picube-build/layers/identity/identityd"
	"github.com/picube/picube-build/layers/nodeconf"
	"github.com/picube/picube-build/layers/status/statusd"
)

const usage = `usage: picube-node COMMAND

  status [--json]   how this node is
  identity          apply picube/node.yaml of the boot partition
  grow              let the root file system fill the card
  configure         configure the packages that the build left over
  join              enter the node's cluster and stay in it
  join hold         let the control plane's parts wait for join, before the kubelet
  backup            leave a backup of the cluster with its workers now
  merge             let the cluster follow another one that is here
  merge status      how far that is
  merge undo        let the cluster live on its own again
  merge split       the same where the other one is far away
  merge forget CUBE let the cluster do without a cube that is gone for good
  begin --empty     begin an empty cluster though another one was here
  display           show how the node is on its displays
  farewell          let the displays say that the power may be cut
  fan               cool the node
  fan full          let the fans run as fast as they can
  clock             set a clock that cannot be right
  clock save        remember the time over a power cut
  serve             the status page and metrics
  unblock           switch Wi-Fi radios on`

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("cannot guess what to do\n%s", usage)
	}
	switch args[0] {
	case "status":
		return status(ctx, args[1:])
	case "identity":
		return applyIdentity()
	case "grow":
		return grow()
	case "configure":
		if err := configured.Run(ctx, os.Stdout); err != nil {
			return err
		}
		return statusd.SetStage("configured")
	case "join":
		if len(args) > 1 && args[1] == "hold" {
			return hold()
		}
		return join(ctx)
	case "backup":
		return backup(ctx)
	case "merge":
		return mergeCommand(ctx, args[1:])
	case "begin":
		return begin(args[1:])
	case "display":
		return display(ctx)
	case "farewell":
		return farewell()
	case "fan":
		return fan(ctx, args[1:])
	case "clock":
		return clock(args[1:])
	case "unblock":
		return unblock()
	case "serve":
		return serve(ctx)
	case "help", "-h", "--help":
		fmt.Println(usage)
		return nil
	}
	return fmt.Errorf("cannot do %q\n%s", args[0], usage)
}

func identity(root, boot string) (*nodeconf.Node, error) {
	disk, err := identityd.DiskID(root)
	if err != nil {
		return nil, err
	}
	return identityd.Identity{Root: root, Boot: boot, Disk: disk}.Apply()
}

func applyIdentity() error {
	n, err := identity("/", nodeconf.BootDir)
	var refused *identityd.RefusedError
	if err != nil && (n == nil || !errors.As(err, &refused)) {
		return err
	}
	if err := unix.Sethostname([]byte(n.Hostname)); err != nil {
		return fmt.Errorf("host name: cannot set it: %w", err)
	}
	if err := publish(n); err != nil {
		return err
	}
	if err := mistakes(refused); err != nil {
		return err
	}
	return statusd.SetStage("userspace")
}

// mistakes tells of a node.yaml that was not applied: on the console, and to
// the displays and the status page.
func mistakes(refused *identityd.RefusedError) error {
	if refused == nil {
		return os.RemoveAll(statusd.MistakesFile)
	}
	fmt.Println("picube-node: identity:", refused)
	return os.WriteFile(statusd.MistakesFile, []byte(refused.Err.Error()+"\n"), 0o644)
}

// published is a copy of node.yaml that everybody on the node may read: the
// boot partition is root's, for the sake of keys that may lie on it.
const published = "/run/picube/node.yaml"

func publish(n *nodeconf.Node) error {
	public := *n
	public.WiFi = nil
	data, err := public.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(published), 0o755); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(published, data, 0o644), markLayers(n))
}

func loadPublished() (*nodeconf.Node, error) {
	data, err := os.ReadFile(published)
	if err != nil {
		return nil, err
	}
	return nodeconf.Parse(data)
}

func grow() error {
	r, err := growd.Grow()
	if err != nil {
		return err
	}
	if r.Grown {
		fmt.Printf("%s now fills the card: %d MiB\n", r.Device, r.Bytes>>20)
	}
	return statusd.SetStage("grown")
}

func status(ctx context.Context, args []string) error {
	n, err := loadPublished()
	if err != nil {
		return err
	}
	s := (&statusd.Live{Node: n, Now: time.Now}).Status(ctx)
	if len(args) > 0 && args[0] == "--json" {
		return json.NewEncoder(os.Stdout).Encode(s)
	}
	return s.Print(os.Stdout)
}

// address is the node's on the cubes' wire, without the prefix length.
func address(n *nodeconf.Node) string {
	a, _, _ := strings.Cut(n.Network.Address, "/")
	return a
}
