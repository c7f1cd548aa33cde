// Package depmod makes the indexes below /usr/lib/modules/VERSION.
package depmod
