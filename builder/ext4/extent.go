package ext4

import "encoding/binary"

// extent maps len blocks of a file from block logical on to disk blocks.
type extent struct {
	logical uint32
	len     uint32
	start   uint64
}

// run is a run of disk blocks.
type run struct{ start, len uint64 }

// extentTreeBlocks returns how many blocks outside the inode a tree of n
// extents needs.
func extentTreeBlocks(n int) int {
	blocks := 0
	for n > extentsInode {
		n = ceilDiv(n, extentsBlock)
		blocks += n
	}
	return blocks
}

func putExtentHeader(b []byte, entries, max, depth int) {
	binary.LittleEndian.PutUint16(b[0:], extentMagic)
	binary.LittleEndian.PutUint16(b[2:], uint16(entries))
	binary.LittleEndian.PutUint16(b[4:], uint16(max))
	binary.LittleEndian.PutUint16(b[6:], uint16(depth))
}

func putExtent(b []byte, e extent) {
	binary.LittleEndian.PutUint32(b[0:], e.logical)
	binary.LittleEndian.PutUint16(b[4:], uint16(e.len))
	binary.LittleEndian.PutUint16(b[6:], uint16(hi(e.start)))
	binary.LittleEndian.PutUint32(b[8:], lo(e.start))
}

func putExtentIndex(b []byte, logical uint32, block uint64) {
	binary.LittleEndian.PutUint32(b[0:], logical)
	binary.LittleEndian.PutUint32(b[4:], lo(block))
	binary.LittleEndian.PutUint16(b[8:], uint16(hi(block)))
}

// encodeExtents returns the 60 bytes that go into the inode and the content of
// the tree blocks, in the order of their block numbers. seed is the checksum
// seed of the inode.
func encodeExtents(extents []extent, blocks []uint64, seed uint32) (root [60]byte, tree [][]byte) {
	if len(extents) <= extentsInode {
		putExtentHeader(root[:], len(extents), extentsInode, 0)
		for i, e := range extents {
			putExtent(root[12+12*i:], e)
		}
		return root, nil
	}
	type child struct {
		logical uint32
		block   uint64
	}
	var level []child
	for i := 0; i < len(extents); i += extentsBlock {
		part := extents[i:min(i+extentsBlock, len(extents))]
		b := make([]byte, blockSize)
		putExtentHeader(b, len(part), extentsBlock, 0)
		for j, e := range part {
			putExtent(b[12+12*j:], e)
		}
		level = append(level, child{part[0].logical, blocks[len(tree)]})
		tree = append(tree, b)
	}
	depth := 1
	for ; len(level) > extentsInode; depth++ {
		var up []child
		for i := 0; i < len(level); i += extentsBlock {
			part := level[i:min(i+extentsBlock, len(level))]
			b := make([]byte, blockSize)
			putExtentHeader(b, len(part), extentsBlock, depth)
			for j, c := range part {
				putExtentIndex(b[12+12*j:], c.logical, c.block)
			}
			up = append(up, child{part[0].logical, blocks[len(tree)]})
			tree = append(tree, b)
		}
		level = up
	}
	putExtentHeader(root[:], len(level), extentsInode, depth)
	for i, c := range level {
		putExtentIndex(root[12+12*i:], c.logical, c.block)
	}
	for _, b := range tree {
		end := 12 + 12*extentsBlock
		binary.LittleEndian.PutUint32(b[end:], crc32c(seed, b[:end]))
	}
	return root, tree
}
