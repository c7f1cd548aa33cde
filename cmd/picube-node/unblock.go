package main

import (
	"encoding/binary"
	"fmt"
	"os"
)

// unblock lifts the soft block of every Wi-Fi radio, which some images set
// until somebody names a country (linux/rfkill.h, struct rfkill_event).
func unblock() error {
	const typeWLAN, opChangeAll = 1, 3
	f, err := os.OpenFile("/dev/rfkill", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot switch the radio on: %w", err)
	}
	defer f.Close()
	event := append(binary.NativeEndian.AppendUint32(nil, 0), typeWLAN, opChangeAll, 0, 0)
	_, err = f.Write(event)
	return err
}
