package ext4

import (
	"encoding/binary"
	"math/bits"
)

// What the superblock says about directory hashes
// (Documentation/filesystems/ext4/super.rst).
const (
	hashHalfMD4     = 1 // its version
	superSignedHash = 1 // its flag for hashes of signed bytes
)

func hashSeed(b [16]byte) (seed [4]uint32) {
	for i := range seed {
		seed[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return seed
}

// halfMD4 hashes a file name for a hashed directory: the first eight words of
// each of MD4's three rounds (RFC 1320), bytes taken as signed, as file
// systems made on x86 do everywhere.
func halfMD4(name string, seed [4]uint32) uint32 {
	state := seed
	if seed == [4]uint32{} {
		state = [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	}
	for rest := name; len(rest) > 0; rest = rest[min(32, len(rest)):] {
		words := hashWords(rest)
		halfMD4Round(&state, &words)
	}
	hash := state[1] &^ 1
	if hash == 0xfffffffe { // reserved as the end mark of readdir
		hash = 0xfffffffc
	}
	return hash
}

// hashWords packs up to 32 bytes, padded with the length of what is left.
func hashWords(s string) [8]uint32 {
	pad := uint32(len(s)) | uint32(len(s))<<8
	pad |= pad << 16
	var words [8]uint32
	for i := range words {
		words[i] = pad
		for j := i * 4; j < min(i*4+4, len(s)); j++ {
			words[i] = uint32(int32(int8(s[j]))) + words[i]<<8
		}
	}
	return words
}

func halfMD4Round(state *[4]uint32, in *[8]uint32) {
	type round struct {
		f     func(x, y, z uint32) uint32
		k     uint32
		order [8]int
		shift [4]int
	}
	rounds := [3]round{
		{func(x, y, z uint32) uint32 { return z ^ x&(y^z) }, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19}},
		{func(x, y, z uint32) uint32 { return x&y + (x^y)&z }, 0x5a827999, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13}},
		{func(x, y, z uint32) uint32 { return x ^ y ^ z }, 0x6ed9eba1, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15}},
	}
	v := *state
	for _, r := range rounds {
		for i, word := range r.order {
			// The register that changes walks a, d, c, b.
			a := (4 - i) & 3
			sum := v[a] + r.f(v[(a+1)&3], v[(a+2)&3], v[(a+3)&3]) + in[word] + r.k
			v[a] = bits.RotateLeft32(sum, r.shift[i&3])
		}
	}
	for i := range v {
		state[i] += v[i]
	}
}
