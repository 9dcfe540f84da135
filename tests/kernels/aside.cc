// Start two threads of a team on one processor and pin one of them. After three rounds the other thread must be on
// another processor, with the same affinity as before.
#include <cstdio>
#include <thread>

#include "team.h"

namespace {

cpu_set_t only(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  return set;
}

}  // namespace

int main() {
  cpu_set_t all;
  sched_getaffinity(0, sizeof(all), &all);
  // Pin this thread, so that only the other thread can move.
  const cpu_set_t here = only(sched_getcpu());
  sched_setaffinity(0, sizeof(here), &here);
  jaxgd::portable::Team team(2, 1, 16);
  const auto rounds = [&](int rank) {
    for (int round = 1; round <= 3; ++round) {
      team.arrive(rank);
      team.wait(round, rank);
    }
  };
  int start = -1, end = -1;
  cpu_set_t after;
  std::thread other([&] {
    sched_setaffinity(0, sizeof(all), &all);
    start = sched_getcpu();
    rounds(1);
    end = sched_getcpu();
    sched_getaffinity(0, sizeof(after), &after);
  });
  rounds(0);
  other.join();
  std::printf("from %d to %d\n", start, end);
  return CPU_EQUAL(&after, &all) && CPU_ISSET(start, &here) && !CPU_ISSET(end, &here) ? 0 : 1;
}
