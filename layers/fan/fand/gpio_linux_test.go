package fand

import (
	"testing"
	"unsafe"
)

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
