// A server that accepts every operation of document/v1: HTTP/2 over clear text without looking at headers or bodies, so that
// no client is held up by it; HTTP/1.1 by Go's own server, for clients that speak only that, and for what a feed asks.
//
//	go run . [file with the answer to GET]
//
// Prints its address. One process on one core takes some hundred thousand operations a second.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

const (
	data, headers, settings, ping, goAway, windowUpdate = 0, 1, 4, 6, 7, 8

	endStream, endHeaders, ack = 1, 4, 1
	preface                    = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	credit                     = 1 << 20 // bytes of bodies between two window updates
)

var (
	taken = []byte(`{"pathId":"/document/v1/accepted","id":"id:accepted"}`)
	found = []byte(`{"root":{"fields":{"totalCount":0},"coverage":{"full":true,"coverage":100},"children":[]}}`)
)

func main() {
	described := taken
	if len(os.Args) > 1 {
		var err error
		if described, err = os.ReadFile(os.Args[1]); err != nil {
			panic(err)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	first := &firsts{listener.Addr(), make(chan net.Conn)}
	go http.Serve(first, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasPrefix(r.URL.Path, "/search/"):
			w.Write(found)
		case r.Method == "GET":
			w.Write(described)
		default:
			w.Write(taken)
		}
	}))
	fmt.Printf("http://%s\n", listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			reader := bufio.NewReaderSize(conn, 1<<18)
			if start, err := reader.Peek(3); err == nil && string(start) == "PRI" {
				serve(conn, reader)
				conn.Close()
			} else {
				first.conns <- &peeked{conn, reader}
			}
		}()
	}
}

// serve answers each stream when its last frame has come.
func serve(conn net.Conn, reader *bufio.Reader) {
	if _, err := io.CopyN(io.Discard, reader, int64(len(preface))); err != nil {
		return
	}
	out := bufio.NewWriterSize(conn, 1<<16)
	write(out, settings, 0, 0, []byte{0, 3, 0, 0, 2, 0, 0, 4, 1, 0, 0, 0}) // 512 streams, 16 MB for the body of each
	write(out, windowUpdate, 0, 0, number(1<<30))
	var head [9]byte
	var received, window uint32 = 0, 65535
	var waiting []uint32
	for {
		if reader.Buffered() < len(head) {
			out.Flush()
		}
		if _, err := io.ReadFull(reader, head[:]); err != nil {
			return
		}
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])&0x7fffffff
		if kind == ping || kind == windowUpdate {
			body := make([]byte, length)
			if _, err := io.ReadFull(reader, body); err != nil {
				return
			}
			if kind == ping && flags&ack == 0 {
				write(out, ping, ack, 0, body)
			} else if kind == windowUpdate && stream == 0 {
				window += binary.BigEndian.Uint32(body)
			}
		} else if _, err := reader.Discard(length); err != nil {
			return
		}
		switch {
		case kind == goAway:
			return
		case kind == settings && flags&ack == 0:
			write(out, settings, ack, 0, nil)
		case kind == data:
			if received += uint32(length); received > credit {
				write(out, windowUpdate, 0, 0, number(received))
				received = 0
			}
		}
		if (kind == data || kind == headers) && flags&endStream != 0 {
			waiting = append(waiting, stream)
		}
		for len(waiting) > 0 && window >= uint32(len(taken)) {
			write(out, headers, endHeaders, waiting[0], []byte{0x88}) // :status 200
			write(out, data, endStream, waiting[0], taken)
			window -= uint32(len(taken))
			waiting = waiting[1:]
		}
	}
}

func write(out *bufio.Writer, kind, flags byte, stream uint32, body []byte) {
	out.Write([]byte{byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body)), kind, flags})
	out.Write(number(stream))
	out.Write(body)
}

func number(value uint32) []byte { return binary.BigEndian.AppendUint32(nil, value) }

// firsts are the connections of HTTP/1.1.
type firsts struct {
	address net.Addr
	conns   chan net.Conn
}

func (f *firsts) Accept() (net.Conn, error) { return <-f.conns, nil }
func (f *firsts) Close() error              { return nil }
func (f *firsts) Addr() net.Addr            { return f.address }

type peeked struct {
	net.Conn
	reader *bufio.Reader
}

func (p *peeked) Read(into []byte) (int, error) { return p.reader.Read(into) }
