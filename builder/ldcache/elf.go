package ldcache

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
)

var (
	errNotELF    = errors.New("cannot read it as a little-endian ELF file")
	errNoLibrary = errors.New("cannot use it as a shared library")
)

// elfFile is what ldconfig looks at. debug/elf reads the section headers too
// and refuses files over them, which ldconfig does not.
type elfFile struct {
	kind    elf.Type
	class   elf.Class
	machine elf.Machine
	eflags  uint32
	soname  string

	segments     uint64 // where their headers are
	segmentCount int
}

type segment struct {
	kind                      elf.ProgType
	offset, vaddr, sizeInFile uint64
}

const (
	minSize    = 64      // of a 64-bit header; ldconfig takes no smaller file
	maxDynamic = 1 << 20 // bytes of a dynamic segment; real ones have some 500
	maxSoname  = 255     // it is a file name
)

// parseHeader reads the first bytes of an ELF file.
func parseHeader(r io.ReaderAt, size int64) (elfFile, error) {
	var h [minSize]byte
	if _, err := r.ReadAt(h[:], 0); size < minSize || err != nil && err != io.EOF {
		return elfFile{}, errNotELF
	}
	if string(h[:4]) != elf.ELFMAG || elf.Data(h[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return elfFile{}, errNotELF
	}
	le := binary.LittleEndian
	f := elfFile{
		class:   elf.Class(h[elf.EI_CLASS]),
		kind:    elf.Type(le.Uint16(h[16:])),
		machine: elf.Machine(le.Uint16(h[18:])),
	}
	switch f.class {
	case elf.ELFCLASS64:
		f.segments, f.segmentCount, f.eflags = le.Uint64(h[32:]), int(le.Uint16(h[56:])), le.Uint32(h[48:])
	case elf.ELFCLASS32:
		f.segments, f.segmentCount, f.eflags = uint64(le.Uint32(h[28:])), int(le.Uint16(h[44:])), le.Uint32(h[36:])
	default:
		return elfFile{}, errNotELF
	}
	return f, nil
}

// parseLibrary reads a shared object's headers and its soname.
func parseLibrary(r io.ReaderAt, size int64) (elfFile, error) {
	f, err := parseHeader(r, size)
	if err != nil {
		return f, err
	}
	if f.kind != elf.ET_DYN {
		return f, errNoLibrary
	}
	headerSize := 56
	if f.class == elf.ELFCLASS32 {
		headerSize = 32
	}
	headers, err := readAt(r, size, f.segments, uint64(f.segmentCount*headerSize))
	if err != nil {
		return f, err
	}
	segments := make([]segment, f.segmentCount)
	for i := range segments {
		segments[i] = f.segment(headers[i*headerSize:])
	}
	f.soname, err = f.readSoname(r, size, segments)
	return f, err
}

func (f elfFile) segment(h []byte) segment {
	le := binary.LittleEndian
	if f.class == elf.ELFCLASS64 {
		return segment{elf.ProgType(le.Uint32(h)), le.Uint64(h[8:]), le.Uint64(h[16:]), le.Uint64(h[32:])}
	}
	return segment{elf.ProgType(le.Uint32(h)), uint64(le.Uint32(h[4:])), uint64(le.Uint32(h[8:])), uint64(le.Uint32(h[16:]))}
}

// readSoname follows the dynamic segment; a library without a soname is none
// the worse for it, one without a string table is no library.
func (f elfFile) readSoname(r io.ReaderAt, size int64, segments []segment) (string, error) {
	var dynamic segment
	for _, s := range segments {
		if s.kind == elf.PT_DYNAMIC {
			dynamic = s
		}
	}
	if dynamic.sizeInFile == 0 || dynamic.sizeInFile > maxDynamic {
		return "", errNoLibrary
	}
	table, err := readAt(r, size, dynamic.offset, dynamic.sizeInFile)
	if err != nil {
		return "", err
	}
	strtab, hasStrtab := f.dynamic(table, elf.DT_STRTAB)
	if !hasStrtab {
		return "", errNoLibrary
	}
	soname, hasSoname := f.dynamic(table, elf.DT_SONAME)
	if !hasSoname {
		return "", nil
	}
	for _, s := range segments {
		if s.kind == elf.PT_LOAD && strtab >= s.vaddr && strtab-s.vaddr < s.sizeInFile {
			strtab = strtab - s.vaddr + s.offset
			break
		}
	}
	offset := strtab + soname
	if offset < strtab || offset >= uint64(size) {
		return "", errNoLibrary
	}
	name, err := readAt(r, size, offset, min(maxSoname+1, uint64(size)-offset))
	if err != nil {
		return "", err
	}
	for i, c := range name {
		if c == 0 {
			return string(name[:i]), nil
		}
	}
	return "", errNoLibrary
}

// dynamic returns the value of a tag's first entry.
func (f elfFile) dynamic(table []byte, tag elf.DynTag) (uint64, bool) {
	le := binary.LittleEndian
	for {
		var t, v uint64
		switch {
		case f.class == elf.ELFCLASS64 && len(table) >= 16:
			t, v, table = le.Uint64(table), le.Uint64(table[8:]), table[16:]
		case f.class == elf.ELFCLASS32 && len(table) >= 8:
			t, v, table = uint64(le.Uint32(table)), uint64(le.Uint32(table[4:])), table[8:]
		default:
			return 0, false
		}
		switch elf.DynTag(t) {
		case tag:
			return v, true
		case elf.DT_NULL:
			return 0, false
		}
	}
}

func readAt(r io.ReaderAt, size int64, offset, length uint64) ([]byte, error) {
	if offset > uint64(size) || length > uint64(size)-offset {
		return nil, errNoLibrary
	}
	b := make([]byte, length)
	if n, err := r.ReadAt(b, int64(offset)); n < len(b) {
		return nil, err
	}
	return b, nil
}

// machine is the architecture that an ldconfig was built for; it decides the
// directories and which libraries it knows.
type machine elf.Machine

// triplet returns Debian's multiarch folder, "" for an unknown machine.
func (m machine) triplet() string {
	switch elf.Machine(m) {
	case elf.EM_X86_64:
		return "x86_64-linux-gnu"
	case elf.EM_386:
		return "i386-linux-gnu"
	case elf.EM_AARCH64:
		return "aarch64-linux-gnu"
	case elf.EM_ARM:
		return "arm-linux-gnueabihf"
	}
	return ""
}

// Library types of sysdeps/generic/ldconfig.h.
const (
	libc6        = 0x0003
	x8664Lib64   = 0x0300
	x8664LibX32  = 0x0800
	armHardFloat = 0x0900
	aarch64Lib64 = 0x0a00
	armSoftFloat = 0x0b00
)

// e_flags of the ARM ABI (ELF for the ARM architecture).
const (
	armABIMask      = 0xff000000
	armABIVersion5  = 0x05000000
	armABIHardFloat = 0x400
	armABISoftFloat = 0x200
)

// flags returns a library's type in the cache; false if this machine's
// ldconfig takes no such library.
func (m machine) flags(f elfFile) (int32, bool) {
	switch elf.Machine(m) {
	case elf.EM_X86_64, elf.EM_386:
		switch {
		case f.machine == elf.EM_X86_64 && f.class == elf.ELFCLASS64:
			return libc6 | x8664Lib64, true
		case f.machine == elf.EM_X86_64:
			return libc6 | x8664LibX32, true
		case f.machine == elf.EM_386 && f.class == elf.ELFCLASS32:
			return libc6, true
		}
		return 0, false
	}
	switch {
	case f.class == elf.ELFCLASS64:
		return libc6 | aarch64Lib64, true
	case f.eflags&armABIMask != armABIVersion5:
		return libc6, true
	case f.eflags&armABIHardFloat != 0:
		return libc6 | armHardFloat, true
	case f.eflags&armABISoftFloat != 0:
		return libc6 | armSoftFloat, true
	}
	return libc6, true
}
