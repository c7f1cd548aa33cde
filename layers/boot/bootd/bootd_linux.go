// Package bootd is init in the initramfs: it makes the card reachable, mounts
// the root file system, lets the node take its identity from the boot
// partition, and hands over to the root's own init.
//
// Not supported: GPT, encrypted or network roots, udev rules. A later kernel
// upgrade replaces it by Debian's initramfs, which does without the identity:
// a unit applies that too.
package bootd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	rootDir   = "/root"
	bootDir   = "/boot"
	moduleDir = "/modules" // as builder/initramfs lays them out
	listFile  = moduleDir + "/list"

	poll       = 20 * time.Millisecond
	remindTime = 10 * time.Second
	failTime   = 60 * time.Second
)

// Identity makes the root file system mounted at root this node's, from what
// lies on the boot partition mounted at boot.
type Identity func(root, boot string) error

// Main does init's work and never returns: it becomes the root's init, or
// restarts the machine.
func Main(identity Identity) {
	var c commandLine
	defer func() {
		if r := recover(); r != nil {
			fail(c, fmt.Errorf("init: %v", r))
		}
	}()
	if err := mountKernel(); err != nil {
		fail(c, err)
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		fail(c, err)
	}
	c = parseCommandLine(string(line))
	fail(c, run(c, identity))
}

// run returns only with an error.
func run(c commandLine, identity Identity) error {
	loadModules(c)
	d := devices{"/sys/class/block", "/dev"}
	root, err := await(c, d)
	if err != nil {
		return err
	}
	if err := mountRoot(c, d, root); err != nil {
		return err
	}
	if err := identify(d, root, identity); err != nil {
		// The node may still be of use, and the unit that applies the identity
		// again says so where a person looks.
		complain("identity: %v", err)
	}
	if c.ro || d.hasErrors(root) {
		// systemd checks a root that is read-only, and makes it writable then.
		if err := unix.Mount("", rootDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			complain("%s: cannot make it read-only: %v", root, err)
		}
	}
	say("starting the system on %s", root)
	return switchRoot(c)
}

// Levels of the kernel's log; "quiet" keeps all but errors off the consoles.
const (
	levelError  = 3
	levelNotice = 5
)

func say(format string, args ...any)      { log(levelNotice, format, args...) }
func complain(format string, args ...any) { log(levelError, format, args...) }

// log writes into the kernel's log, so that it is on every console, in order
// with the kernel's own, and later in the journal.
func log(level int, format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "picube:", line)
		return
	}
	defer f.Close()
	for part := range strings.Lines(line) {
		fmt.Fprintf(f, "<%d>picube: %s\n", level, strings.TrimSuffix(part, "\n"))
	}
}

func fail(c commandLine, err error) {
	complain("cannot start: %v", err)
	if c.debug {
		complain("picube.debug: waiting for ever")
		select {}
	}
	complain("restarting in %v", failTime)
	time.Sleep(failTime)
	unix.Sync()
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	complain("cannot restart: %v", err)
	select {}
}

func mount(what, dir, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(what, dir, kind, flags, data); err != nil {
		return fmt.Errorf("%s: cannot mount it: %w", what, err)
	}
	return nil
}

func mountKernel() error {
	const quiet = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV
	err := errors.Join(
		mount("proc", "/proc", "proc", quiet, ""),
		mount("sysfs", "/sys", "sysfs", quiet, ""),
		// The kernel does not do it for an initramfs.
		mount("devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"),
		// Options as systemd's own, which finds it mounted.
		mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=20%,nr_inodes=800k"),
	)
	// Lest the kernel drops lines of ours; it only costs those.
	_ = os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0)
	return err
}

// loadModules loads what the list names. A module that does not fit the
// machine is no reason to stop.
func loadModules(c commandLine) {
	list, err := os.ReadFile(listFile)
	if err != nil {
		complain("modules: %v", err)
		return
	}
	for _, name := range strings.Fields(string(list)) {
		err := loadModule(path.Join(moduleDir, name), strings.Join(c.modules[strings.TrimSuffix(name, ".ko")], " "))
		switch {
		case err == nil || errors.Is(err, unix.EEXIST):
			if c.debug {
				say("module %s: loaded", name)
			}
		case errors.Is(err, unix.ENODEV) && !c.debug:
		default:
			complain("module %s: cannot load it: %v", name, err)
		}
	}
}

func loadModule(file, options string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), options, 0)
}

// await waits for the root's device.
func await(c commandLine, d devices) (string, error) {
	if c.root == "" {
		return "", errors.New("cannot find the root file system: there is no root= on the kernel's command line")
	}
	begin := time.Now()
	reminded := begin
	for {
		found, err := d.find(c.root)
		if err != nil {
			return "", err
		}
		if len(found) > 1 {
			complain("root=%s: %s all answer to it, taking the first", c.root, strings.Join(found, ", "))
		}
		if len(found) > 0 {
			return found[0], nil
		}
		now := time.Now()
		if now.Sub(begin) > c.wait {
			return "", fmt.Errorf("root=%s: cannot find it in %v; there is %s", c.root, c.wait, d.describe())
		}
		if now.Sub(reminded) > remindTime {
			reminded = now
			complain("waiting for root=%s; there is %s", c.root, d.describe())
		}
		time.Sleep(poll)
	}
}

func mountRoot(c commandLine, d devices, name string) error {
	// Mounted writable in any case: the identity is written now.
	flags, data := mountFlags(c.flags)
	return mount(filepath.Join(d.dev, name), rootDir, c.fsType, flags, data)
}

// mountFlags tells the options that mount(2) takes as flags from those that
// are the file system's own.
func mountFlags(options string) (flags uintptr, data string) {
	known := map[string]uintptr{
		"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME,
		"strictatime": unix.MS_STRICTATIME, "lazytime": unix.MS_LAZYTIME, "sync": unix.MS_SYNCHRONOUS,
		"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	}
	var rest []string
	for o := range strings.SplitSeq(options, ",") {
		if f, ok := known[o]; ok {
			flags |= f
		} else if o != "" {
			rest = append(rest, o)
		}
	}
	return flags, strings.Join(rest, ",")
}

// identify mounts the boot partition for as long as the identity needs it.
func identify(d devices, root string, identity Identity) error {
	boot, err := d.bootOf(root)
	if err != nil {
		return err
	}
	if err := mount(filepath.Join(d.dev, boot), bootDir, "vfat", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "umask=0077"); err != nil {
		return err
	}
	err = identity(rootDir, bootDir)
	if uerr := unix.Unmount(bootDir, 0); uerr != nil {
		err = errors.Join(err, fmt.Errorf("%s: cannot unmount it: %w", boot, uerr))
	}
	return err
}

// switchRoot makes the mounted root the root and becomes its init.
func switchRoot(c commandLine) error {
	program, err := findInit(c.init)
	if err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := os.MkdirAll(rootDir+dir, 0o755); err != nil && !errors.Is(err, unix.EROFS) {
			return err
		}
		if err := unix.Mount(dir, rootDir+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("%s: cannot move it to the root: %w", dir, err)
		}
	}
	// The initramfs would stay in memory for good.
	if err := removeBelow("/"); err != nil {
		return fmt.Errorf("initramfs: cannot free it: %w", err)
	}
	if err := unix.Chdir(rootDir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("root: cannot move it to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	args := append([]string{program}, os.Args[1:]...)
	return fmt.Errorf("%s: cannot run it: %w", program, unix.Exec(program, args, os.Environ()))
}

// findInit returns the path of init within the root, chosen as the kernel
// chooses.
func findInit(wanted string) (string, error) {
	candidates := []string{"/sbin/init", "/etc/init", "/bin/init", "/bin/sh"}
	if wanted != "" {
		candidates = []string{wanted}
	}
	for _, p := range candidates {
		// A link may be absolute, so it is not followed from out here.
		if info, err := os.Lstat(filepath.Join(rootDir, p)); err == nil && !info.IsDir() {
			return p, nil
		}
	}
	return "", fmt.Errorf("root: cannot find %s", strings.Join(candidates, ", "))
}

// removeBelow removes what lies below a folder on the same file system.
func removeBelow(dir string) error {
	device := func(p string) (uint64, error) {
		var st unix.Stat_t
		err := unix.Lstat(p, &st)
		return uint64(st.Dev), err
	}
	own, err := device(dir)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		dev, err := device(p)
		if err != nil {
			return err
		}
		if dev != own {
			continue
		}
		if e.IsDir() {
			if err := removeBelow(p); err != nil {
				return err
			}
		}
		// A folder in which something is mounted stays.
		if err := os.Remove(p); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
