import { create } from '@bufbuild/protobuf';
import type { MessageOf } from '../../image/index.js';
import { type sysctl_entry, sysctl_entrySchema } from '../../image/schema/index.js';

/** Fields of CRIU's images for settings of devices: lists in which the place of an entry says which setting it is. */
const ORDER = {
  ipv4: `
  accept_local accept_redirects accept_source_route arp_accept arp_announce arp_filter arp_ignore arp_notify
  bootp_relay disable_policy disable_xfrm force_igmp_version forwarding igmpv2_unsolicited_report_interval
  igmpv3_unsolicited_report_interval log_martians medium_id promote_secondaries proxy_arp proxy_arp_pvlan
  route_localnet rp_filter secure_redirects send_redirects shared_media src_valid_mark tag
  ignore_routes_with_linkdown drop_gratuitous_arp drop_unicast_in_l2_multicast`,
  ipv6: `
  accept_dad accept_ra accept_ra_defrtr accept_ra_from_local accept_ra_min_hop_limit accept_ra_mtu accept_ra_pinfo
  accept_ra_rt_info_max_plen accept_ra_rtr_pref accept_redirects accept_source_route autoconf dad_transmits
  disable_ipv6 drop_unicast_in_l2_multicast drop_unsolicited_na force_mld_version force_tllao forwarding hop_limit
  ignore_routes_with_linkdown keep_addr_on_down max_addresses max_desync_factor mldv1_unsolicited_report_interval
  mldv2_unsolicited_report_interval mtu ndisc_notify optimistic_dad proxy_ndp regen_max_retry
  router_probe_interval router_solicitation_delay router_solicitation_interval router_solicitations stable_secret
  suppress_frag_ndisc temp_prefered_lft temp_valid_lft use_oif_addrs_only use_optimistic use_tempaddr`,
} as const;

type Family = keyof typeof ORDER;

function namesOf(family: Family): string[] {
  return ORDER[family].trim().split(/\s+/);
}

const TEXT = 5;
const NUMBER = 6;
/** The one that is no number. */
const SECRET = 'stable_secret';

/** The list for a device (`all`, `default`, `lo`); entries of settings that are not in `sysctls` are empty. */
export function criuConf(
  sysctls: ReadonlyMap<string, string>,
  family: Family,
  device: string,
): sysctl_entry[] {
  return namesOf(family).map((name) => {
    const value = sysctls.get(`${family}/conf/${device}/${name}`);
    if (name === SECRET)
      return create(sysctl_entrySchema, { type: TEXT, ...(value === undefined ? {} : { sarg: value }) });
    return create(sysctl_entrySchema, {
      type: NUMBER,
      ...(value === undefined ? {} : { iarg: Number(value) }),
    });
  });
}

/** What the messages of a namespace and its devices say, by paths below /proc/sys/net. */
export function fromCriuConf(
  netns: MessageOf<'netns'> | undefined,
  devices: readonly MessageOf<'netdev'>[],
): Map<string, string> {
  const found = new Map<string, string>();
  const put = (family: Family, device: string, entries: readonly sysctl_entry[]): void => {
    namesOf(family).forEach((name, index) => {
      const entry = entries[index];
      if (entry === undefined) return;
      if (Object.hasOwn(entry, 'iarg')) found.set(`${family}/conf/${device}/${name}`, `${entry.iarg}`);
      else if (Object.hasOwn(entry, 'sarg')) found.set(`${family}/conf/${device}/${name}`, entry.sarg.trim());
    });
  };
  if (netns !== undefined) {
    put('ipv4', 'default', netns.defConf4);
    put('ipv4', 'all', netns.allConf4);
    put('ipv6', 'default', netns.defConf6);
    put('ipv6', 'all', netns.allConf6);
    put1(found, 'unix/max_dgram_qlen', netns.unixConf);
    put1(found, 'ipv4/ping_group_range', netns.ipv4Sysctl);
  }
  for (const { name, conf4, conf6 } of devices) {
    put('ipv4', name, conf4);
    put('ipv6', name, conf6);
  }
  return found;
}

/** Lists of one. */
function put1(found: Map<string, string>, path: string, [entry]: readonly sysctl_entry[]): void {
  if (entry === undefined) return;
  if (Object.hasOwn(entry, 'iarg')) found.set(path, `${entry.iarg}`);
  else if (Object.hasOwn(entry, 'sarg')) found.set(path, entry.sarg.trim());
}
