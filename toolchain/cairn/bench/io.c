// SPDX-License-Identifier: MIT
// Run in a Linux guest by bench.py's script: what a disk and a network cost, in TSC ticks as seen by who
// waits for them. A line for each, `bench: KEY MINIMUM AVERAGE`, and one when there is no more.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

enum {
    kBlock = 4096,
    kMega = 1 << 20,
    kRegion = 16 * kMega,  // of the disk
    kWarm = 32,
    kTimes = 256,
    kPackets = 4096,
    kPacket = 64,     // bytes after the UDP header
    kInFlight = 64,   // packets on their way at most,
    kConfirmed = 16,  // so many of which are confirmed at a time
    kTcpMega = 16,
    kPort = 7,
};

static _Alignas(kBlock) char buffer[kMega];

static void require(int holds, const char* what) {
    if (holds)
        return;
    perror(what);
    exit(1);
}

// --- a disk
// -------------------------------------------------------------------------------------------------------

typedef ssize_t Transfer(int file, void* data, size_t size, off_t at);

static ssize_t write_at(int file, void* data, size_t size, off_t at) {
    return pwrite(file, data, size, at);
}

static aio_context_t context;

/// One request by Linux' asynchronous interface, waited for: what a database or fio with a queue depth of 1
/// does.
static ssize_t submit(int opcode, int file, void* data, size_t size, off_t at) {
    struct iocb block = {.aio_lio_opcode = (unsigned short)opcode,
                         .aio_fildes = (unsigned)file,
                         .aio_buf = (unsigned long)data,
                         .aio_nbytes = size,
                         .aio_offset = at};
    struct iocb* blocks[] = {&block};
    struct io_event event;
    require(syscall(SYS_io_submit, context, 1L, blocks) == 1, "io_submit");
    require(syscall(SYS_io_getevents, context, 1L, 1L, &event, NULL) == 1, "io_getevents");
    return (ssize_t)event.res;
}

static ssize_t submitted_read(int file, void* data, size_t size, off_t at) {
    return submit(IOCB_CMD_PREAD, file, data, size, at);
}

static ssize_t submitted_write(int file, void* data, size_t size, off_t at) {
    return submit(IOCB_CMD_PWRITE, file, data, size, at);
}

static void measure_disk(const char* key, Transfer* transfer, int file, size_t size, int times) {
    unsigned long least = ULONG_MAX;
    unsigned long sum = 0;
    for (int i = -kWarm; i < times; ++i) {
        const off_t at = (i + kWarm) * (off_t)size % kRegion;
        const unsigned long before = __rdtsc();
        const ssize_t done = transfer(file, buffer, size, at);
        const unsigned long ticks = __rdtsc() - before;
        require(done == (ssize_t)size, key);
        if (i < 0)
            continue;
        sum += ticks;
        least = ticks < least ? ticks : least;
    }
    printf("bench: %s %lu %lu\n", key, least, sum / (unsigned)times);
}

/// All of the region is written before anything is measured, so that a disk that grows has grown.
static void disk(const char* path) {
    const int file = open(path, O_RDWR | O_DIRECT);
    require(file >= 0, path);
    memset(buffer, 0x5a, sizeof buffer);
    for (off_t at = 0; at < kRegion; at += kMega)
        require(pwrite(file, buffer, kMega, at) == kMega, path);
    measure_disk("disk-read-4k", pread, file, kBlock, kTimes);
    measure_disk("disk-write-4k", write_at, file, kBlock, kTimes);
    measure_disk("disk-read-1m", pread, file, kMega, kTimes / 4);
    measure_disk("disk-write-1m", write_at, file, kMega, kTimes / 4);
    require(syscall(SYS_io_setup, 1L, &context) == 0, "io_setup");
    measure_disk("disk-submit-read-4k", submitted_read, file, kBlock, kTimes);
    measure_disk("disk-submit-write-4k", submitted_write, file, kBlock, kTimes);
    // Without Linux' I/O scheduler, which hands each request to another task.
    const int scheduler = open("/sys/block/vda/queue/scheduler", O_WRONLY);
    require(scheduler >= 0 && write(scheduler, "none", 4) == 4, "scheduler");
    measure_disk("disk-read-4k-direct", pread, file, kBlock, kTimes);
    measure_disk("disk-write-4k-direct", write_at, file, kBlock, kTimes);
    measure_disk("disk-submit-read-4k-direct", submitted_read, file, kBlock, kTimes);
    measure_disk("disk-submit-write-4k-direct", submitted_write, file, kBlock, kTimes);
    measure_disk("disk-read-1m-direct", pread, file, kMega, kTimes / 4);
}

// --- a network
// ----------------------------------------------------------------------------------------------------

static struct sockaddr_in address(const char* text) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(kPort)};
    require(inet_pton(AF_INET, text, &at.sin_addr) == 1, text);
    return at;
}

static unsigned short internet_checksum(const unsigned short* words, size_t bytes) {
    unsigned long sum = 0;
    for (size_t i = 0; i < bytes / 2; ++i)
        sum += words[i];
    sum = (sum & 0xffff) + (sum >> 16);
    return (unsigned short)~(sum + (sum >> 16));
}

static void round_trip(int echo, const struct sockaddr_in* to, int number) {
    struct {
        struct icmphdr header;
        char data[56];
    } request = {.header = {.type = ICMP_ECHO, .un.echo.sequence = (unsigned short)number}};
    request.header.checksum = internet_checksum((const unsigned short*)&request, sizeof request);
    require(sendto(echo, &request, sizeof request, 0, (const struct sockaddr*)to, sizeof *to) > 0, "echo");
    for (;;) {
        char packet[256];
        require(recv(echo, packet, sizeof packet, 0) > 0, "echo");
        const struct icmphdr* reply = (const struct icmphdr*)(packet + sizeof(struct iphdr));
        if (reply->type == ICMP_ECHOREPLY && reply->un.echo.sequence == (unsigned short)number)
            return;
    }
}

static void ping(const struct sockaddr_in* to) {
    const int echo = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    unsigned long least = ULONG_MAX;
    unsigned long sum = 0;
    for (int i = -kWarm; i < kTimes; ++i) {
        const unsigned long before = __rdtsc();
        round_trip(echo, to, i);
        const unsigned long ticks = __rdtsc() - before;
        if (i < 0)
            continue;
        sum += ticks;
        least = ticks < least ? ticks : least;
    }
    printf("bench: net-ping %lu %lu\n", least, sum / kTimes);
}

/// What a packet of a flow costs that keeps its CPU busy.
static void flow(const struct sockaddr_in* to) {
    const int packets = socket(AF_INET, SOCK_DGRAM, 0);
    require(connect(packets, (const struct sockaddr*)to, sizeof *to) == 0, "connect");
    unsigned long before = 0;
    for (int sent = -kInFlight, confirmed = sent; confirmed < kPackets;) {
        if (sent == 0)
            before = __rdtsc();
        if (sent < kPackets && sent - confirmed < kInFlight) {
            require(send(packets, buffer, kPacket, 0) == kPacket, "send");
            ++sent;
        } else {
            require(recv(packets, buffer, kPacket, 0) > 0, "confirmation");
            confirmed += kConfirmed;
        }
    }
    const unsigned long each = (__rdtsc() - before) / kPackets;
    printf("bench: net-packet %lu %lu\n", each, each);
    close(packets);
}

static void receive_flow(void) {
    const int packets = socket(AF_INET, SOCK_DGRAM, 0);
    const struct sockaddr_in any = address("0.0.0.0");
    require(bind(packets, (const struct sockaddr*)&any, sizeof any) == 0, "bind");
    for (unsigned long count = 1;; ++count) {
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        require(recvfrom(packets, buffer, kPacket, 0, (struct sockaddr*)&from, &size) > 0, "packet");
        if (count % kConfirmed == 0)
            require(sendto(packets, buffer, 1, 0, (const struct sockaddr*)&from, size) == 1, "confirmation");
    }
}

/// The sender's time until the receiver has got and confirmed all.
static unsigned long send_tcp(const struct sockaddr_in* to) {
    const int stream = socket(AF_INET, SOCK_STREAM, 0);
    require(connect(stream, (const struct sockaddr*)to, sizeof *to) == 0, "connect");
    const unsigned long before = __rdtsc();
    for (int i = 0; i < kTcpMega; ++i)
        for (ssize_t done = 0; done < kMega;) {
            const ssize_t part = send(stream, buffer + done, (size_t)(kMega - done), 0);
            require(part > 0, "send");
            done += part;
        }
    require(shutdown(stream, SHUT_WR) == 0 && recv(stream, buffer, 1, 0) == 0, "confirmation");
    const unsigned long ticks = __rdtsc() - before;
    close(stream);
    return ticks;
}

/// Takes what one sender after another sends.
static void receive_tcp(void) {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    const struct sockaddr_in any = address("0.0.0.0");
    require(bind(listener, (const struct sockaddr*)&any, sizeof any) == 0 && listen(listener, 1) == 0,
            "listen");
    for (;;) {
        const int stream = accept(listener, NULL, NULL);
        while (recv(stream, buffer, sizeof buffer, 0) > 0) {
        }
        close(stream);
    }
}

static void net(const char* peer) {
    const struct sockaddr_in to = address(peer);
    const int probe = socket(AF_INET, SOCK_STREAM, 0);
    while (connect(probe, (const struct sockaddr*)&to, sizeof to) != 0)
        sleep(1);
    close(probe);
    ping(&to);
    flow(&to);
    const unsigned long first = send_tcp(&to);
    const unsigned long second = send_tcp(&to);
    printf("bench: net-tcp-1m %lu %lu\n", (first < second ? first : second) / kTcpMega,
           (first + second) / 2 / kTcpMega);
}

int main(int count, char** words) {
    setlinebuf(stdout);
    if (count == 3 && strcmp(words[1], "disk") == 0)
        disk(words[2]);
    else if (count == 3 && strcmp(words[1], "net") == 0)
        net(words[2]);
    else if (fork() == 0)
        receive_flow();
    else
        receive_tcp();
    puts("bench: end");
    pause();
}
