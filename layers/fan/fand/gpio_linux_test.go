package fand

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestKeep is the service manager's side.
func TestKeep(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := (Store{Socket: socket}).keep("gpio-4", int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	text, control := make([]byte, 100), make([]byte, 100)
	n, c, _, _, err := manager.ReadMsgUnix(text, control)
	if err != nil || string(text[:n]) != "FDSTORE=1\nFDNAME=gpio-4" {
		t.Fatalf("%q %v", text[:n], err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:c])
	if err != nil || len(messages) != 1 {
		t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	w.Close()
	if _, err := unix.Write(fds[0], []byte("x")); err != nil {
		t.Errorf("the copy is not open: %v", err)
	}
	unix.Close(fds[0])
}

// TestSizes holds that the structures are the kernel's: their size is part of
// the ioctl's number.
func TestSizes(t *testing.T) {
	for request, size := range map[uint]uintptr{
		getChipInfo: unsafe.Sizeof(chipInfo{}), getLine: unsafe.Sizeof(lineRequest{}), setValues: unsafe.Sizeof(lineValues{}),
	} {
		if want := uintptr(request >> 16 & 0x3fff); size != want {
			t.Errorf("%x: %d bytes, want %d", request, size, want)
		}
	}
}
