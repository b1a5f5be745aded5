/* The limit: the least that a program must do to forward packets between two TUN interfaces, or to answer packets.
 *
 * A thread for each direction reads until the interface is empty, writes each packet unchanged, and polls. To answer,
 * one thread does that with one interface, and swaps the addresses of IPv4 packets.
 * Call: `loop offload|plain ROLE LEFT RIGHT`. It speaks the protocol of benchmarks/forwarders; any other role than
 * those that answer forwards.
 * With offload, every packet has a virtio header in front and may be a superpacket of 64 KiB. Role `answer-bundles`
 * then reads many datagrams, and answers those of one flow and size by one superpacket.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifndef TUN_F_USO4 /* Headers older than Linux 6.2. */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define VIRTIO_HEADER 10
#define LARGEST (VIRTIO_HEADER + 65535)
#define BUNDLE 256
#define SLOT 2048 /* Datagrams to answer are short. */
#define RUN 64 /* The most segments of a superpacket of UDP. */

struct direction {
    int source;
    int target;
    int header; /* Bytes before a packet to answer; -1 to forward packets unchanged. */
};

_Noreturn static void fail(const char *what) {
    fprintf(stderr, "loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_tun(const char *name, int offload) {
    const unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0)};
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

    if (tun < 0)
        fail("/dev/net/tun");
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(tun, TUNSETIFF, &request) < 0)
        fail(name);
    if (offload && ioctl(tun, TUNSETOFFLOAD, tcp) < 0)
        fail("TUNSETOFFLOAD");
    if (offload) /* Older kernels know no UDP superpackets and refuse; TCP's stay on. */
        ioctl(tun, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6);
    return tun;
}

static void swap_addresses(char *packet) {
    char source[4];

    memcpy(source, packet + 12, 4);
    memcpy(packet + 12, packet + 16, 4);
    memcpy(packet + 16, source, 4);
}

static void *forward(void *argument) {
    const struct direction *way = argument;
    struct pollfd readable = {.fd = way->source, .events = POLLIN};
    char *packet = malloc(LARGEST);

    if (!packet)
        fail("malloc");
    for (;;) {
        ssize_t size = read(way->source, packet, LARGEST);
        if (size >= 0 && way->header >= 0 && packet[way->header] >> 4 == 4)
            swap_addresses(packet + way->header);
        if (size >= 0 && write(way->target, packet, size) < 0)
            continue; /* A packet that the kernel rejects is lost, as on a wire. */
        if (size < 0 && errno == EAGAIN)
            poll(&readable, 1, -1);
        else if (size < 0)
            fail("read");
    }
}

/* A datagram in IPv4 as the interface has it. */
struct datagram {
    struct virtio_net_hdr virtio;
    struct iphdr ip;
    struct udphdr udp;
    char payload[];
} __attribute__((packed));

static uint16_t sum(const void *start, size_t size, uint32_t sum) {
    for (const uint16_t *word = start; size > 1; size -= 2)
        sum += *word++;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

static int is_like(const struct datagram *one, const struct datagram *other) {
    return one->ip.tot_len == other->ip.tot_len && one->ip.protocol == other->ip.protocol
        && !memcmp(&one->ip.saddr, &other->ip.saddr, 8 + 4); /* The addresses and the ports. */
}

/* Write the answer to the first datagrams that are alike, and return their number. */
static int answer_run(int tun, char packets[][SLOT], int count) {
    static char memory[LARGEST];
    struct datagram *first = (void *)packets[0], *run = (void *)memory;
    size_t size = ntohs(first->ip.tot_len) - sizeof first->ip - sizeof first->udp, used = 0;
    int taken = 0;

    if (first->ip.protocol != IPPROTO_UDP) { /* The ping by which a measurement begins. */
        swap_addresses((char *)&first->ip);
        if (write(tun, first, VIRTIO_HEADER + ntohs(first->ip.tot_len)) < 0)
            fail("write");
        return 1;
    }
    while (taken < count && taken < RUN && is_like(first, (void *)packets[taken])) {
        memcpy(run->payload + used, ((struct datagram *)packets[taken++])->payload, size);
        used += size;
    }
    memcpy(memory, first, sizeof *run);
    swap_addresses((char *)&run->ip);
    run->ip.tot_len = htons(sizeof run->ip + sizeof run->udp + used);
    run->ip.check = 0;
    run->ip.check = ~sum(&run->ip, sizeof run->ip, 0);
    run->udp.len = htons(sizeof run->udp + used);
    run->udp.check = sum(&run->ip.saddr, 8, htons(IPPROTO_UDP) + run->udp.len);
    run->virtio = (struct virtio_net_hdr){
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = taken > 1 ? VIRTIO_NET_HDR_GSO_UDP_L4 : VIRTIO_NET_HDR_GSO_NONE,
        .hdr_len = sizeof run->ip + sizeof run->udp,
        .gso_size = taken > 1 ? size : 0,
        .csum_start = sizeof run->ip,
        .csum_offset = offsetof(struct udphdr, check),
    };
    if (write(tun, memory, sizeof *run + used) < 0)
        fail("write");
    return taken;
}

static void answer_bundles(int tun) {
    static char packets[BUNDLE][SLOT];
    struct pollfd readable = {.fd = tun, .events = POLLIN};

    for (;;) {
        int count = 0, done = 0;
        while (count < BUNDLE && read(tun, packets[count], SLOT) > 0)
            count += ((struct datagram *)packets[count])->ip.version == 4;
        if (!count)
            poll(&readable, 1, -1);
        while (done < count)
            done += answer_run(tun, packets + done, count - done);
    }
}

int main(int count, char **arguments) {
    if (count < 3)
        return 2;
    int offload = !strcmp(arguments[1], "offload"), answer = !strncmp(arguments[2], "answer", 6);
    int left = open_tun("left", offload), right = answer ? left : open_tun("right", offload);
    int header = answer ? (offload ? VIRTIO_HEADER : 0) : -1;
    struct direction there = {left, right, header}, back = {right, left, header};
    pthread_t thread;

    puts("made");
    fflush(stdout);
    getchar();
    if (!strcmp(arguments[2], "answer-bundles"))
        answer_bundles(left);
    if (!answer && pthread_create(&thread, NULL, forward, &back))
        fail("pthread_create");
    forward(&there);
}
